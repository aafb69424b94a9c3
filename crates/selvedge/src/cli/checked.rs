//! All that a configuration says and refers to, checked before anything is bound or opened.

#[cfg(any(feature = "cedar", feature = "server"))]
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
#[cfg(feature = "server")]
use std::sync::Arc;

#[cfg(any(feature = "cedar", feature = "server"))]
use selvedge_kernel::config::Mention;
#[cfg(feature = "server")]
use selvedge_kernel::config::Tls;
use selvedge_kernel::config::{Configured, Profile, mentions, parse_config};
use selvedge_kernel::diagnostic::Diagnostic;

use crate::app::App;
use crate::config::Config;
#[cfg(feature = "server")]
use crate::log::Log;

use super::access::{config_of, manifest_for};
use super::args::Common;
use super::check::{absent, manifest_of, with_manifest};
#[cfg(feature = "server")]
use super::exit::{Code, Stop};
use super::secrets;
use super::settings::sources;

/// What a server is started with.
#[cfg_attr(not(feature = "server"), expect(dead_code, reason = "a build without the server checks as one with it would"))]
pub struct Checked {
    pub configured: Configured,
    pub config: Config,
    /// With what its manifest declares.
    pub app: App,
    /// The certificate and its key, where the configuration names them.
    #[cfg(feature = "server")]
    pub certificates: Option<Arc<selvedge_http::Certificates>>,
    /// What is allowed, but may not be meant.
    pub warnings: Vec<Diagnostic>,
}

/// What is looked at.
pub struct Extent<'a> {
    /// The address that a flag names.
    pub listen: Option<&'a str>,
    /// What the verb is for, where the configuration does not say.
    pub profile: Profile,
    /// Whether `dev` asks, which is never for production.
    pub dev: bool,
}

impl Extent<'_> {
    /// The profile that holds.
    pub fn profile_of(&self, configured: &Configured) -> Profile {
        configured.config.profile.unwrap_or(self.profile)
    }
}

/// Reads and checks everything.
///
/// # Errors
/// All that is wrong, of all layers and of all that they refer to, in the order in which it is looked at.
pub fn checked(common: &Common, app: App, extent: &Extent<'_>) -> Result<Checked, Vec<Diagnostic>> {
    let sources = sources(common, extent.listen)?;
    let mut wrong = Vec::new();
    let configured = kept(parse_config(&sources), &mut wrong);
    let mentioned = mentions(&sources);
    if let Some(configured) = &configured {
        wrong.extend(contradictions(configured, extent));
    }
    #[cfg(feature = "jwt")]
    wrong.extend(configured.iter().flat_map(keys_of_issuers));
    #[cfg(feature = "cedar")]
    wrong.extend(["authorization.policies", "authorization.shadow"].into_iter().flat_map(|key| policies(&mentioned, key)));
    #[cfg(feature = "server")]
    let certificates = kept(certificates(&mentioned), &mut wrong).flatten();
    let data = PathBuf::from(mentioned.get("data").map_or("./.selvedge", |mention| mention.text.as_str()));
    let manifest = manifest_for(common, &data).unwrap_or_else(|stop| {
        wrong.push(plain(&stop.message));
        manifest_of(common, None)
    });
    let bare = app.clone();
    let declared = kept(with_manifest(app, manifest.as_deref()).map_err(|error| error.0), &mut wrong);
    let mut warnings = Vec::new();
    if let Some(declared) = &declared {
        let file = manifest.as_deref().unwrap_or(Path::new("app.yaml"));
        warnings.extend(absent(file, declared.registry.programs()));
        let missing = secrets::missing(&declared.registry, file, &declared.pipelines);
        match configured.as_ref().map_or(extent.profile, |configured| extent.profile_of(configured)) {
            Profile::Production => wrong.extend(missing),
            // They may come while it runs: until then what needs them fails, and is tried again.
            Profile::Development => warnings.extend(missing),
        }
    }
    let config = configured.as_ref().map(config_of).transpose().unwrap_or_else(|stop| {
        wrong.push(plain(&stop.message));
        None
    });
    match (configured, config) {
        (Some(configured), Some(config)) if wrong.is_empty() => Ok(Checked {
            configured,
            config,
            app: declared.unwrap_or(bare),
            #[cfg(feature = "server")]
            certificates,
            warnings,
        }),
        _ => Err(wrong),
    }
}

fn kept<T>(read: Result<T, Vec<Diagnostic>>, wrong: &mut Vec<Diagnostic>) -> Option<T> {
    read.map_err(|mut found| wrong.append(&mut found)).ok()
}

/// What is right by itself and not beside the rest.
fn contradictions(configured: &Configured, extent: &Extent<'_>) -> Vec<Diagnostic> {
    let mut wrong = Vec::new();
    let address = configured.config.listen;
    if !address.ip().is_loopback() && configured.config.tls.is_none() {
        let hint = "listen on 127.0.0.1 behind something that speaks TLS, write tls: {certificate: ./cert.pem, key: ./key.pem}, \
                    or write `tls: off` in selvedge.yaml if you know that nobody is on the way";
        wrong.push(configured.wrong("/listen", format!("{address} can be reached from other machines, and keys would go there in the clear"), hint));
    }
    if extent.dev && configured.config.profile == Some(Profile::Production) {
        let hint = "start it with `selvedge serve`, or write profile: development";
        wrong.push(configured.wrong("/profile", "`profile` is production, and `dev` makes a key by itself and takes in what is saved", hint));
    }
    wrong
}

/// What is wrong with the files of keys that issuers of tokens name.
#[cfg(feature = "jwt")]
fn keys_of_issuers(configured: &Configured) -> Vec<Diagnostic> {
    let issuers = configured.config.authentication.issuers.iter();
    let wrong = issuers.filter_map(|(name, issuer)| {
        let trouble = selvedge_adapters::jwt::unusable_file(&issuer.jwks)?;
        let message = format!("the keys of the issuer `{name}`: {}: {trouble}", issuer.jwks);
        Some(configured.wrong(&format!("/authentication/issuers/{name}/jwks"), message, "name a file with a set of keys, {\"keys\": […]}, or its URL"))
    });
    wrong.collect()
}

/// What is wrong with the policies that are named.
#[cfg(feature = "cedar")]
fn policies(mentioned: &BTreeMap<&'static str, Mention>, key: &'static str) -> Vec<Diagnostic> {
    let Some(mention) = mentioned.get(key) else { return Vec::new() };
    let folder = Path::new(&mention.text);
    let Err(refused) = selvedge_adapters::cedar::CedarPolicies::open(folder) else { return Vec::new() };
    let of = |fault: selvedge_adapters::cedar::Fault| match fault.file == folder {
        true => said(mention, format!("`{key}`: {}: {}", mention.text, fault.text), "name a folder with files that end in .cedar"),
        false => Diagnostic {
            file: fault.file.display().to_string(),
            line: fault.line.unwrap_or(0),
            column: 0,
            message: fault.text,
            hint: Some("`selvedge policy test` asks a set of policies without a server".to_owned()),
        },
    };
    refused.0.into_iter().map(of).collect()
}

/// The certificates that are named, as files of this moment.
#[cfg(feature = "server")]
fn certificates(mentioned: &BTreeMap<&'static str, Mention>) -> Result<Option<Arc<selvedge_http::Certificates>>, Vec<Diagnostic>> {
    let (Some(certificate), Some(key)) = (mentioned.get("tls.certificate"), mentioned.get("tls.key")) else { return Ok(None) };
    let read = selvedge_http::Certificates::open(&certificate.text, &key.text, std::time::SystemTime::now());
    read.map(|read| Some(Arc::new(read))).map_err(|unusable| {
        let (name, mention) = match unusable.half {
            selvedge_http::Half::Certificate => ("tls.certificate", certificate),
            selvedge_http::Half::Key => ("tls.key", key),
        };
        vec![said(mention, format!("`{name}`: {}: {}", mention.text, unusable.message), &unusable.hint)]
    })
}

/// What is wrong with what a value names, where the value stands.
#[cfg(any(feature = "cedar", feature = "server"))]
fn said(mention: &Mention, message: String, hint: &str) -> Diagnostic {
    Diagnostic { message, hint: Some(hint.to_owned()), ..mention.place.clone() }
}

fn plain(message: &str) -> Diagnostic {
    Diagnostic { file: "configuration".to_owned(), line: 0, column: 0, message: message.to_owned(), hint: None }
}

/// The log on standard error, as it is configured.
#[cfg(feature = "server")]
pub fn log(configured: &Configured) -> Result<Log, Stop> {
    let said = configured.config.log;
    Log::to(std::io::stderr(), said.level, said.format).map_err(|error| Stop::new(Code::Failed, format!("the log cannot be started: {error}")))
}

/// Where its HTTP API is served, in words.
#[cfg(feature = "server")]
pub fn scheme(configured: &Configured) -> &'static str {
    match configured.config.tls {
        Some(Tls::Files(_)) => "https",
        Some(Tls::Off(_)) | None => "http",
    }
}
