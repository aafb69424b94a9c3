//! Selvedge's HTTP API: routes, streams, problem documents, and the connections below them. Who asks is told by a credential,
//! and what they may do by the policies of the engine: a handler has no other way to a verb.

mod answer;
mod caller;
mod document;
mod door;
mod patient;
mod rates;
mod refusal;
mod routes;
mod secure;
mod server;
mod session;
#[expect(dead_code, reason = "they are there for the document")]
mod shapes;
mod stream;
mod take;
mod tls;
mod watched;

pub use document::{document, router};
pub use door::{Door, Ready, Tokens, Verify};
pub use rates::Rates;
pub use refusal::{Document, PROBLEM, Refusal, status};
pub use routes::pipelines::DEFINITION;
pub use server::{Ended, Patience, bind, serve, serve_tls};
pub use session::Sessions;
pub use tls::{Certificates, Half, Mark, Unusable};
pub use watched::{Answered, Told, watched};
