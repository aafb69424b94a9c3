//! A client that says exactly what a test wants it to say.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::shapes::Document;

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The code of a problem document.
    pub fn code(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let document = self.json();
        assert_eq!(document["status"], self.status, "{self:?}");
        document["code"].as_str().unwrap().to_owned()
    }
}

/// A request, as it is written.
#[derive(Clone)]
pub struct Ask {
    address: SocketAddr,
    key: Option<String>,
    document: Option<Arc<Document>>,
}

impl Ask {
    pub fn of(address: SocketAddr, key: &str) -> Ask {
        Ask { address, key: (!key.is_empty()).then(|| key.to_owned()), document: None }
    }

    /// Holds what comes back against a document.
    pub fn holding(self, document: Arc<Document>) -> Ask {
        Ask { document: Some(document), ..self }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], None).await
    }

    pub async fn post(&self, path: &str, body: &str) -> Answer {
        self.send("POST", path, &[], Some(body)).await
    }

    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&str>) -> Answer {
        let text = self.text(method, path, headers, body);
        let answer = answer(raw(self.address, text.as_bytes()).await);
        // Whatever a test asks: what comes back looks as the document says.
        if let Some(document) = &self.document {
            document.told(method, path, &answer).unwrap_or_else(|misfit| panic!("{misfit}"));
        }
        answer
    }

    pub fn text(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&str>) -> String {
        let mut text = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n");
        if let Some(key) = &self.key {
            text += &format!("Authorization: Bearer {key}\r\n");
        }
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        match body {
            Some(body) => text + &format!("Content-Length: {}\r\n\r\n{body}", body.len()),
            None => text + "\r\n",
        }
    }

    /// Opens a stream; what comes is read by [`Reading`].
    pub async fn open(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&str>) -> Reading {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(self.text(method, path, headers, body).as_bytes()).await.unwrap();
        Reading { stream, text: String::new() }
    }
}

/// Sends bytes and reads until the server closes.
pub async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // A server that refuses early may close before all of it is written.
    let _ = stream.write_all(bytes).await;
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text).await;
    String::from_utf8_lossy(&text).into_owned()
}

pub fn answer(text: String) -> Answer {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no answer: {text:?}"));
    Answer { status, head: head.to_owned(), text: body.to_owned() }
}

/// A stream that is being read.
pub struct Reading {
    stream: TcpStream,
    text: String,
}

impl Reading {
    /// Reads until something stands in it, or the server closes.
    pub async fn until(&mut self, wanted: &str) -> &str {
        let mut part = [0; 4096];
        while !self.text.contains(wanted) {
            match self.stream.read(&mut part).await {
                Ok(0) | Err(_) => panic!("it ended without {wanted:?}: {}", self.text),
                Ok(read) => self.text.push_str(&String::from_utf8_lossy(&part[..read])),
            }
        }
        &self.text
    }

    /// Reads to the end.
    pub async fn end(mut self) -> String {
        let mut rest = Vec::new();
        let _ = self.stream.read_to_end(&mut rest).await;
        self.text + &String::from_utf8_lossy(&rest)
    }
}
