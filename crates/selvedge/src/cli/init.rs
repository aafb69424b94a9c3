//! `init`: a folder that runs.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::args::Common;
use super::exit::{Code, Stop};
use super::print;

/// What such a folder holds.
const FILES: [(&str, &str); 7] = [
    ("pipeline.yaml", include_str!("init/pipeline.yaml")),
    ("measure.py", include_str!("init/measure.py")),
    ("selvedge.py", include_str!("../../../../clients/python/selvedge.py")),
    ("app.yaml", include_str!("init/app.yaml")),
    ("test_pipeline.py", include_str!("init/test_pipeline.py")),
    ("README.md", include_str!("init/README.md")),
    (".gitignore", include_str!("init/gitignore")),
];

/// `init [NAME]`: in a new folder of that name, or in this one.
///
/// # Errors
/// One of the files is there already: nothing is written then. The folder cannot be written.
pub fn init(common: &Common, name: Option<PathBuf>) -> Result<Code, Stop> {
    let folder = name.unwrap_or_else(|| PathBuf::from("."));
    let there: Vec<&str> = FILES.iter().map(|(file, _)| *file).filter(|file| folder.join(file).symlink_metadata().is_ok()).collect();
    if !there.is_empty() {
        let whose = folder.display();
        return Err(Stop::usage(format!("{} in {whose} would be overwritten; nothing was written: name a new folder, `selvedge init NAME`", there.join(", "))));
    }
    let failed = |path: &Path, error: &std::io::Error| Stop::new(Code::Configuration, format!("cannot write {}: {error}", path.display()));
    fs::create_dir_all(&folder).map_err(|error| failed(&folder, &error))?;
    for (file, text) in FILES {
        let path = folder.join(file);
        let written = OpenOptions::new().write(true).create_new(true).open(&path).and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|error| failed(&path, &error))?;
    }
    print::result(common.output, &json!({ "folder": folder, "files": FILES.map(|(file, _)| file) }), || {
        let enter = if folder == Path::new(".") { String::new() } else { format!("cd {} && ", folder.display()) };
        format!("a pipeline, its Python activity, a schedule and a test; next:\n  {enter}selvedge run pipeline.yaml")
    })?;
    Ok(Code::Done)
}
