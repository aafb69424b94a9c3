//! The holder's side of the control socket.

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::Arc;

use selvedge_kernel::error::Consequence;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};

use super::{Desk, LINE_BYTES, Problem, Reply, Request, SOCKET, SocketPath, perform};

/// Connections at the same time.
const CONNECTIONS: usize = 64;

/// The control socket of a held data directory. Dropped, it answers nobody any more.
pub(crate) struct Listener {
    path: PathBuf,
    serving: AbortHandle,
}

impl Listener {
    /// Listens in a data directory that this process has locked: a socket that lies there is a dead one's.
    pub(crate) fn open(desk: Arc<Desk>) -> io::Result<Listener> {
        let path = desk.data.join(SOCKET);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = SocketPath::of(&desk.data)?;
        let listener = UnixListener::bind(&socket.path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        let owner = std::fs::metadata(&path)?.uid();
        let serving = tokio::spawn(accept(listener, owner, desk)).abort_handle();
        Ok(Listener { path, serving })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.serving.abort();
        // The next holder removes it as well.
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn accept(listener: UnixListener, owner: u32, desk: Arc<Desk>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    // The semaphore is never closed.
    while let Ok(permit) = room.clone().acquire_owned().await {
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, most likely: the next one may fit.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        };
        // Between `bind` and the change of its mode others may have connected.
        if stream.peer_cred().map(|peer| peer.uid()).ok() != Some(owner) {
            continue;
        }
        let desk = desk.clone();
        connections.spawn(async move {
            // A client that goes away has nobody to tell.
            let _ = serve(stream, &desk).await;
            drop(permit);
        });
    }
}

async fn serve(stream: UnixStream, desk: &Desk) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = Vec::new();
        (&mut reader).take(LINE_BYTES).read_until(b'\n', &mut line).await?;
        if line.is_empty() {
            return Ok(());
        }
        let whole = line.ends_with(b"\n");
        let asked = if whole {
            serde_json::from_slice::<Request>(&line).map_err(|error| error.to_string())
        } else {
            Err(format!("it has no end within {LINE_BYTES} bytes"))
        };
        let reply = match asked {
            Ok(request) => tokio::select! {
                done = perform(desk, request) => match done {
                    Ok(value) => Reply::Ok(value),
                    Err(problem) => Reply::Error(problem),
                },
                () = gone(&mut reader) => return Ok(()),
            },
            Err(reason) => {
                let text = format!("this is no request of this version: {reason}; use the `selvedge` that was built with the holder");
                Reply::Error(Problem::new(Consequence::FixInput, "bad_request", text))
            }
        };
        let mut answer = serde_json::to_vec(&reply)?;
        answer.push(b'\n');
        writer.write_all(&answer).await?;
        if !whole {
            // Where the next one begins is not known.
            return Ok(());
        }
    }
}

/// Comes to its end when the client goes away while it waits for its answer.
async fn gone(reader: &mut BufReader<tokio::net::unix::OwnedReadHalf>) {
    if reader.fill_buf().await.is_ok_and(|more| !more.is_empty()) {
        // It has asked the next thing already.
        std::future::pending::<()>().await;
    }
}
