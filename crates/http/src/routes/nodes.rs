//! `/v1/nodes`: the processes that own shards of the store.

use crate::answer::{Answer, Done};
use crate::caller::Caller;
use crate::shapes::health::Node;

/// The processes that own shards: who each is, since when, and which shards it owns.
#[utoipa::path(get, path = "/v1/nodes", tag = "nodes", responses((status = 200, description = "all of them", body = Vec<Node>)))]
pub(crate) async fn nodes(caller: Caller) -> Done {
    Ok(Answer::of(caller.asker().nodes()?))
}
