//! The files of an application while somebody writes them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use selvedge_kernel::diagnostic::Diagnostic;
use selvedge_kernel::manifest::{Manifest, parse_manifest};
use selvedge_kernel::pipeline::parse::version;

use crate::app::App;

use super::access::manifest_for;
use super::args::Common;
use super::check::{absent, with_manifest};
use super::checked::Checked;
use super::secrets;

/// What the files said at a look: their bytes, as hashes; none where one cannot be read.
type Mark = BTreeMap<PathBuf, Option<blake3::Hash>>;

/// What was saved, where nothing is wrong with it.
pub struct Change {
    /// The application with it.
    pub app: App,
    /// Whether nothing but pipelines is other than before.
    pub pipelines_alone: bool,
    /// What has changed, in words.
    pub said: String,
    /// What is allowed, but may not be meant.
    pub warnings: Vec<Diagnostic>,
}

/// The manifest and its pipelines, as they were taken in and as they are.
pub struct Saved {
    common: Common,
    data: PathBuf,
    /// What the manifest in force says beside its pipelines.
    manifest: Manifest,
    /// The pipelines in force, each with its version.
    pipelines: BTreeMap<String, String>,
    /// The files of pipelines that were named last.
    files: Vec<PathBuf>,
    seen: Mark,
    before: Mark,
}

impl Saved {
    /// What was checked is what is in force.
    pub fn of(common: &Common, ready: &Checked) -> Saved {
        let mut saved = Saved {
            common: common.clone(),
            data: ready.config.data.clone(),
            manifest: Manifest::default(),
            pipelines: pipelines_of(&ready.app),
            files: ready.app.pipelines.clone(),
            seen: Mark::new(),
            before: Mark::new(),
        };
        saved.manifest = saved.declared().unwrap_or_default();
        saved.seen = saved.mark();
        saved.before = saved.seen.clone();
        saved
    }

    /// What was saved since it was last asked, once two looks see the same; with it, what is wrong with it. What was refused is
    /// said once.
    pub fn look(&mut self, bare: App) -> Option<Result<Change, Vec<Diagnostic>>> {
        let mark = self.mark();
        if mark == self.seen || mark != self.before {
            self.before = mark;
            return None;
        }
        let changed: BTreeSet<String> = mark
            .iter()
            .filter(|(file, hash)| self.seen.get(*file) != Some(*hash))
            .map(|(file, _)| file)
            .chain(self.seen.keys().filter(|file| !mark.contains_key(*file)))
            .map(|file| file.display().to_string())
            .collect();
        self.seen = mark;
        let file = self.file();
        let app = match with_manifest(bare, file.as_deref()) {
            Ok(app) => app,
            Err(wrong) => return Some(Err(wrong.0)),
        };
        let manifest = self.declared().unwrap_or_default();
        let pipelines = pipelines_of(&app);
        let pipelines_alone = manifest == self.manifest;
        let named = file.unwrap_or_else(|| PathBuf::from("app.yaml"));
        let mut warnings = absent(&named, app.registry.programs());
        warnings.extend(secrets::missing(&app.registry, &named, &app.pipelines));
        let said = if pipelines_alone { self.difference(&pipelines) } else { format!("{} changed", changed.into_iter().collect::<Vec<_>>().join(", ")) };
        (self.manifest, self.pipelines, self.files) = (manifest, pipelines, app.pipelines.clone());
        if said.is_empty() {
            // A comment, say.
            return None;
        }
        Some(Ok(Change { app, pipelines_alone, said, warnings }))
    }

    /// Which pipelines are other ones than those in force.
    fn difference(&self, pipelines: &BTreeMap<String, String>) -> String {
        let mut parts = Vec::new();
        for (name, version) in pipelines.iter().filter(|(name, version)| self.pipelines.get(*name) != Some(*version)) {
            let how = if self.pipelines.contains_key(name) { "has changed" } else { "is new" };
            parts.push(format!("the pipeline `{name}` {how}, version {version} is in force for new runs"));
        }
        parts.extend(self.pipelines.keys().filter(|name| !pipelines.contains_key(*name)).map(|name| format!("the pipeline `{name}` is gone")));
        parts.join("; ")
    }

    fn file(&self) -> Option<PathBuf> {
        manifest_for(&self.common, &self.data).ok().flatten()
    }

    /// The manifest as it is written now, without the pipelines that it names; none if it cannot be read.
    fn declared(&self) -> Option<Manifest> {
        let (manifest, _) = parse_manifest("app.yaml", &std::fs::read_to_string(self.file()?).ok()?).ok()?;
        Some(Manifest { pipelines: Vec::new(), ..manifest })
    }

    fn mark(&mut self) -> Mark {
        let file = self.file();
        if let Some(file) = &file
            && let Ok((manifest, _)) = parse_manifest("app.yaml", &std::fs::read_to_string(file).unwrap_or_default())
        {
            // While it cannot be read, those that it named before are looked at.
            self.files = manifest.pipelines.iter().map(|pipeline| file.with_file_name(pipeline)).collect();
        }
        let all = file.into_iter().chain(self.files.iter().cloned());
        all.map(|file| (file.clone(), hash(&file))).collect()
    }
}

fn hash(file: &Path) -> Option<blake3::Hash> {
    std::fs::read(file).ok().map(|bytes| blake3::hash(&bytes))
}

fn pipelines_of(app: &App) -> BTreeMap<String, String> {
    app.registry.pipelines.iter().map(|(name, definition)| (name.clone(), version(definition))).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const RIGHT: &str = "selvedge: 1\nname: p\nstages: [{ name: rest, mode: sleep, for: 1s }]\n";

    /// An application of one pipeline, as it is in force.
    fn saved(folder: &Path) -> Saved {
        std::fs::write(folder.join("app.yaml"), "pipelines: [p.yaml]\n").unwrap();
        std::fs::write(folder.join("p.yaml"), RIGHT).unwrap();
        let common = Common { app: Some(folder.join("app.yaml")), ..Common::default() };
        let app = App::new().manifest(folder.join("app.yaml")).unwrap();
        let (pipelines, files) = (pipelines_of(&app), app.pipelines);
        let mut saved = Saved { common, data: folder.join("data"), manifest: Manifest::default(), pipelines, files, seen: Mark::new(), before: Mark::new() };
        saved.seen = saved.mark();
        saved.before = saved.seen.clone();
        saved
    }

    /// Whether a look found something, and whether it was right.
    fn looked(saved: &mut Saved) -> Option<bool> {
        saved.look(App::new()).map(|found| found.is_ok())
    }

    #[test]
    fn a_change_is_taken_in_when_two_looks_see_the_same_and_what_is_refused_is_said_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut saved = saved(folder.path());
        let write = |text: &str| std::fs::write(folder.path().join("p.yaml"), text).unwrap();
        assert_eq!(looked(&mut saved), None);
        // Half of it is written, then the rest.
        write("selvedge: 1\n");
        assert_eq!(looked(&mut saved), None);
        write(&RIGHT.replace("1s", "2s"));
        assert_eq!((looked(&mut saved), looked(&mut saved), looked(&mut saved)), (None, Some(true), None));
        write(&RIGHT.replace("sleep", "slepe"));
        assert_eq!((looked(&mut saved), looked(&mut saved), looked(&mut saved), looked(&mut saved)), (None, Some(false), None, None));
        // Back to what is in force there is nothing to say; nor of a comment.
        write(&format!("# two seconds\n{}", RIGHT.replace("1s", "2s")));
        assert_eq!((looked(&mut saved), looked(&mut saved), looked(&mut saved)), (None, None, None));
        std::fs::remove_file(folder.path().join("p.yaml")).unwrap();
        assert_eq!((looked(&mut saved), looked(&mut saved), looked(&mut saved)), (None, Some(false), None));
    }

    #[test]
    fn pipelines_alone_need_no_engine_that_starts_again_and_anything_else_does() {
        let folder = tempfile::tempdir().unwrap();
        let mut saved = saved(folder.path());
        std::fs::write(folder.path().join("q.yaml"), RIGHT.replace("name: p", "name: q")).unwrap();
        let mut change = |text: &str| {
            std::fs::write(folder.path().join("app.yaml"), text).unwrap();
            assert!(saved.look(App::new()).is_none());
            saved.look(App::new()).unwrap().unwrap()
        };
        let more = change("pipelines: [p.yaml, q.yaml]\n");
        assert!(more.pipelines_alone && more.said.contains("`q` is new"), "{}", more.said);
        assert!(change("pipelines: [q.yaml]\n").said.contains("`p` is gone"));
        let other = change("egress: [api.example.org]\npipelines: [q.yaml]\n");
        assert!(!other.pipelines_alone && other.said.contains("app.yaml changed"), "{}", other.said);
    }
}
