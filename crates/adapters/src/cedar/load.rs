//! Reads a folder of policies: `*.cedar` in it are for every tenant, `TENANT/*.cedar` for one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cedar_policy::{Policy, PolicyId, PolicySet, Schema, ValidationMode, Validator};

use super::fault::{Fault, Refused};

/// Bytes of one file.
const FILE_BYTES: u64 = 1 << 20;
/// Policies of a folder, with its tenants.
const POLICIES: usize = 10_000;

/// A folder as it was read.
pub(super) struct Read {
    /// For every tenant.
    pub all: Vec<Policy>,
    /// For one.
    pub tenants: BTreeMap<String, Vec<Policy>>,
}

struct File {
    path: PathBuf,
    tenant: Option<String>,
    text: String,
}

/// The mark of a folder, without reading sense into it; none if it cannot be read.
pub(super) fn mark(folder: &Path) -> Option<[u8; 32]> {
    let mut faults = Vec::new();
    let files = files(folder, &mut faults);
    if !faults.is_empty() {
        return None;
    }
    let mut hasher = blake3::Hasher::new();
    for file in &files {
        for part in [file.path.as_os_str().as_encoded_bytes(), file.text.as_bytes()] {
            hasher.update(&(part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
    }
    Some(*hasher.finalize().as_bytes())
}

/// Reads a folder whole.
///
/// # Errors
/// Everything that is wrong in all of its files.
pub(super) fn read(folder: &Path, schema: &Schema) -> Result<Read, Refused> {
    let mut faults = Vec::new();
    let files = files(folder, &mut faults);
    let mut read = Read { all: Vec::new(), tenants: BTreeMap::new() };
    let mut known: BTreeMap<String, PathBuf> = BTreeMap::new();
    for file in &files {
        let policies = policies(file, schema, &mut known, &mut faults);
        match &file.tenant {
            None => read.all.extend(policies),
            Some(tenant) => read.tenants.entry(tenant.clone()).or_default().extend(policies),
        }
    }
    if known.len() > POLICIES {
        faults.push(Fault::whole(folder, format!("there are {} policies, the limit is {POLICIES}: say more with one, by roles", known.len())));
    }
    if faults.is_empty() { Ok(read) } else { Err(Refused(faults)) }
}

/// The files of a folder, in the order of their names.
fn files(folder: &Path, faults: &mut Vec<Fault>) -> Vec<File> {
    let mut found = Vec::new();
    for path in entries(folder, faults) {
        if path.is_dir() {
            let Some(tenant) = path.file_name().and_then(|name| name.to_str()).map(str::to_owned) else {
                faults.push(Fault::whole(&path, "the name of the folder is no text, and no tenant has it: rename it".to_owned()));
                continue;
            };
            for path in entries(&path, faults) {
                if path.is_dir() {
                    faults.push(Fault::whole(&path, "a folder in the folder of a tenant is not read: put its policies into files beside it".to_owned()));
                } else {
                    found.extend(file(path, Some(tenant.clone()), faults));
                }
            }
        } else {
            found.extend(file(path, None, faults));
        }
    }
    found
}

/// What lies in a folder, by name; what is hidden is not looked at.
fn entries(folder: &Path, faults: &mut Vec<Fault>) -> Vec<PathBuf> {
    let listed = std::fs::read_dir(folder).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>());
    match listed {
        Ok(mut paths) => {
            paths.retain(|path| path.file_name().is_some_and(|name| !name.as_encoded_bytes().starts_with(b".")));
            paths.sort();
            paths
        }
        Err(error) => {
            faults.push(Fault::whole(folder, format!("the folder cannot be read ({error}): make it, and put policies into files named *.cedar")));
            Vec::new()
        }
    }
}

fn file(path: PathBuf, tenant: Option<String>, faults: &mut Vec<Fault>) -> Option<File> {
    let extension = path.extension().filter(|extension| extension.eq_ignore_ascii_case("cedar"))?;
    if extension != "cedar" {
        faults.push(Fault::whole(&path, "policies are in files named *.cedar, in lower case: rename it".to_owned()));
        return None;
    }
    let size = std::fs::metadata(&path).map(|of| of.len());
    let text = match size {
        Ok(bytes) if bytes > FILE_BYTES => {
            faults.push(Fault::whole(&path, format!("the file has {bytes} bytes, the limit is {FILE_BYTES}: split it")));
            return None;
        }
        _ => std::fs::read_to_string(&path),
    };
    match text {
        Ok(text) => Some(File { path, tenant, text }),
        Err(error) => {
            faults.push(Fault::whole(&path, format!("the file cannot be read: {error}")));
            None
        }
    }
}

/// The policies of a file, each under the id that its `@id` gives it, or under file and place: `billing#2`.
fn policies(file: &File, schema: &Schema, known: &mut BTreeMap<String, PathBuf>, faults: &mut Vec<Fault>) -> Vec<Policy> {
    let set: PolicySet = match file.text.parse() {
        Ok(set) => set,
        Err(errors) => {
            let errors: cedar_policy::ParseErrors = errors;
            faults.extend(errors.iter().map(|error| Fault::said(&file.path, &file.text, 0, error)));
            return Vec::new();
        }
    };
    for template in set.templates() {
        let text = format!("{} has a slot (`?principal`, `?resource`), and nothing fills slots here: name the principal or its role", template.id());
        faults.push(Fault::whole(&file.path, text));
    }
    let checked = Validator::new(schema.clone()).validate(&set, ValidationMode::Strict);
    let mut found: Vec<Fault> = checked.validation_errors().map(|error| Fault::said(&file.path, &file.text, 0, error)).collect();
    // What can never apply was meant otherwise; in a `forbid` it is a hole. Of a line that has a fault that is no news.
    for warning in checked.validation_warnings().map(|warning| Fault::said(&file.path, &file.text, 0, warning)) {
        if found.iter().all(|fault| fault.line != warning.line) {
            found.push(warning);
        }
    }
    faults.append(&mut found);
    let stem = file.path.file_stem().unwrap_or_default().to_string_lossy();
    let stem = file.tenant.as_ref().map_or_else(|| stem.to_string(), |tenant| format!("{tenant}/{stem}"));
    let mut found: Vec<(usize, Policy)> = set.policies().map(|policy| (place(policy), policy.clone())).collect();
    found.sort_by_key(|(place, _)| *place);
    let mut named = Vec::with_capacity(found.len());
    for (place, policy) in found {
        let id = policy.annotation("id").filter(|id| !id.is_empty()).map_or_else(|| format!("{stem}#{}", place + 1), str::to_owned);
        if let Some(other) = known.insert(id.clone(), file.path.clone()) {
            faults.push(Fault::whole(&file.path, format!("a second policy has the id `{id}`, the first is in {}: give it another @id", other.display())));
        }
        named.push(policy.new_id(PolicyId::new(id)));
    }
    named
}

/// The place of a policy in its file, from 0: the parser names them `policy0`, `policy1`, and so on.
fn place(policy: &Policy) -> usize {
    let id: &str = policy.id().as_ref();
    id.strip_prefix("policy").and_then(|number| number.parse().ok()).unwrap_or(usize::MAX)
}
