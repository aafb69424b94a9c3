//! What our server is compared with: the same frame, axum on hyper, around handlers that do nothing but read and answer.

use std::path::Path;

use axum::Router;
use axum::body::Body;
use axum::extract::Json;
use axum::http::{StatusCode, header};
use axum::routing::{get, post};
use bytes::Bytes;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::child::{self, Said};
use crate::load::Failed;

/// Serves until nobody holds its standard input any more. `frames`: a file with what its stream says.
pub async fn run(frames: &Path) -> Result<(), Failed> {
    child::room_for_connections();
    let frames = Bytes::from(std::fs::read(frames)?);
    let streamed = move || {
        let frames = frames.clone();
        async move { ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(stream::iter([Ok::<_, std::convert::Infallible>(frames)]))) }
    };
    let router = Router::new()
        .route("/call/{key}", post(async |Json(_): Json<Value>| Json(json!({ "id": "inv_0", "result": null }))))
        .route("/send/{key}", post(async |Json(_): Json<Value>| (StatusCode::ACCEPTED, Json(json!({ "id": "inv_0" })))))
        .route("/stream", get(streamed));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    child::say(&Said { address: listener.local_addr()?, keys: Vec::new() })?;
    tokio::select! {
        ended = async { axum::serve(listener, router).await } => Ok(ended?),
        () = child::until_nobody_asks() => Ok(()),
    }
}
