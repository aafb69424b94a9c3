//! Inputs as files, for tasks that are too large for a line.

use bytes::Bytes;
use selvedge_kernel::error::{AttemptError, WorkError};
use serde_json::value::RawValue;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use tokio::runtime::Handle;

use super::protocol::ExecTask;
use super::spec::ExecSpec;

/// A file that holds a task's input as JSON Lines; removed when dropped.
#[derive(Debug)]
pub struct InputFile {
    path: PathBuf,
}

impl Drop for InputFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The task as its program sees it: where the spec says `as_file`, with the path of a file in place of its input. The
/// items of a list are a line each, anything else is one line.
pub async fn prepare(spec: &ExecSpec, runtime: &Handle, number: u64, task: ExecTask) -> Result<(ExecTask, Option<InputFile>), AttemptError> {
    if !spec.as_file {
        return Ok((task, None));
    }
    let folder = &spec.scratch;
    let failed = |reason: String| AttemptError {
        error: WorkError::new("exec_input", format!("the input file of `{}` cannot be written to {}: {reason}", task.activity, folder.display())),
        retryable: true,
        retry_after_ms: None,
    };
    let (target, input) = (folder.clone(), task.input.clone());
    let file = runtime
        .spawn_blocking(move || write(&target, number, &input))
        .await
        .map_err(|error| failed(error.to_string()))?
        .map_err(|error| failed(error.to_string()))?;
    let input = Bytes::from(serde_json::Value::String(file.path.to_string_lossy().into_owned()).to_string());
    Ok((ExecTask { input, ..task }, Some(file)))
}

fn write(folder: &Path, number: u64, input: &[u8]) -> std::io::Result<InputFile> {
    let (file, path) = create(folder, number)?;
    let mut file = std::io::BufWriter::new(file);
    let written = InputFile { path };
    let items: Vec<&RawValue> = match serde_json::from_slice(input) {
        Ok(items) => items,
        Err(_) => vec![serde_json::from_slice(input)?],
    };
    for item in items {
        for byte in item.get().bytes() {
            file.write_all(&[if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }])?;
        }
        file.write_all(b"\n")?;
    }
    file.flush()?;
    Ok(written)
}

/// A new file. Other pools of this process and files that a killed one left may have the first names.
fn create(folder: &Path, number: u64) -> std::io::Result<(std::fs::File, PathBuf)> {
    let mut last = None;
    for other in 0..1_000 {
        let path = folder.join(format!("selvedge-input-{}-{number}-{other}.jsonl", std::process::id()));
        match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => return Ok((file, path)),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => last = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(last.unwrap_or_else(|| std::io::Error::other("no name is free")))
}
