//! Lists, a page after the other.

use serde_json::Value;

use super::client::{Answer, Ask};
use super::rig::{PIPELINE, Rig};

/// Where the next page is.
fn next(answer: &Answer, path: &str) -> Option<String> {
    let link = answer.header("link")?;
    let query = link.strip_prefix('<')?.strip_suffix(">; rel=\"next\"")?;
    Some(format!("{path}{query}"))
}

/// All lines of a list, read `limit` at a time.
async fn all(ask: &Ask, path: &str, query: &str, limit: usize) -> Vec<Value> {
    let (mut lines, mut at) = (Vec::new(), Some(format!("{path}?{query}limit={limit}")));
    while let Some(here) = at {
        let answer = ask.get(&here).await;
        assert_eq!(answer.status, 200, "{here}: {answer:?}");
        let page = answer.json().as_array().unwrap().clone();
        at = next(&answer, path);
        assert!(page.len() == limit || at.is_none(), "{here}: {} lines, and more", page.len());
        lines.extend(page);
    }
    lines
}

#[tokio::test]
async fn a_list_read_page_by_page_is_the_list_each_line_once_and_in_its_order() {
    let rig = Rig::new().await;
    let owner = rig.owner();
    owner.send("PUT", "/v1/pipelines/asked", &[], Some(PIPELINE)).await;
    for n in 0..7 {
        assert_eq!(owner.post(&format!("/v1/actors/counter/k {n}/call/add", n = n).replace(' ', "%20"), "1").await.status, 200);
        assert_eq!(owner.post("/v1/pipelines/asked/runs", "{}").await.status, 201);
        // Each fails, and none is tried again.
        assert_eq!(owner.post(&format!("/v1/actors/counter/f{n}/call/fail"), "1").await.status, 422);
    }
    for (path, query, count) in [
        ("/v1/actors", "", 7),
        ("/v1/actors", "where=type%3Acounter&", 7),
        ("/v1/invocations", "all=true&", 14),
        ("/v1/invocations", "where=status%3Acompleted&all=true&", 7),
        ("/v1/runs", "", 7),
        ("/v1/runs", "where=pipeline%3Aasked&", 7),
    ] {
        let whole = owner.get(&format!("{path}?{query}")).await;
        assert_eq!(whole.header("link"), None, "{whole:?}");
        let whole = whole.json().as_array().unwrap().clone();
        assert_eq!(whole.len(), count, "{path}?{query}");
        for limit in [1, 3, 7, 100] {
            assert_eq!(all(&owner, path, query, limit).await, whole, "{path}?{query} by {limit}");
        }
    }
    for limit in [1, 2, 100] {
        assert_eq!(all(&owner, "/v1/dead-letters", "", limit).await, owner.get("/v1/dead-letters").await.json().as_array().unwrap().clone());
    }
}

#[tokio::test]
async fn a_page_that_cannot_be_had_is_refused_and_says_what_to_write() {
    let rig = Rig::new().await;
    let owner = rig.owner();
    for (query, wanted) in [("limit=0", "from 1 to 1000"), ("limit=1001", "from 1 to 1000"), ("cursor=x", "leave it out"), ("limit=many", "limit")] {
        for list in ["runs", "invocations", "actors", "dead-letters"] {
            let answer = owner.get(&format!("/v1/{list}?{query}")).await;
            assert_eq!((answer.status, answer.code()), (400, "bad_request".to_owned()), "{list} {query}: {answer:?}");
            assert!(answer.text.contains(wanted), "{list} {query}: {answer:?}");
        }
    }
}
