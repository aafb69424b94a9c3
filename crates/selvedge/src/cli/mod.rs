//! The command line: words in, an exit code out.

mod access;
mod actors;
mod args;
mod backup;
mod call;
mod check;
mod checked;
#[cfg(feature = "server")]
mod dev;
mod disabled;
mod doctor;
mod exit;
mod explain;
mod export;
mod hand;
mod happened;
#[cfg(feature = "server")]
mod health;
mod init;
mod keys;
mod letters;
mod man;
#[cfg(feature = "server")]
mod notify;
mod pipelines;
mod policy;
mod print;
mod progress;
mod read_only;
#[cfg(feature = "server")]
mod remote;
mod replay;
#[cfg(feature = "server")]
mod roots;
#[cfg(feature = "server")]
mod route;
mod run;
mod runs;
mod said;
#[cfg(feature = "server")]
mod saved;
mod schedules;
mod secrets;
#[cfg(feature = "server")]
mod serve;
mod settings;
mod slots;
mod stored;
mod stuck;
mod usage;
mod verify;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use selvedge_engine::exec::{SHIM_VERB, shim_main};

use crate::app::App;
use args::{Approvals, Cli, Noun, Runs};
use exit::{Code, Stop};

/// The whole command line, with the handlers and activities of an application.
///
/// ```no_run
/// fn main() -> std::process::ExitCode {
///     selvedge::main(selvedge::App::new())
/// }
/// ```
#[must_use]
pub fn main(app: App) -> ExitCode {
    let mut words = std::env::args_os().skip(1).peekable();
    if words.next_if(|first| first == SHIM_VERB).is_some() {
        return shim_main(words);
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage::end(&error).into(),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            print::complain(&format!("the runtime cannot be started: {error}"));
            return Code::Failed.into();
        }
    };
    let ended = runtime.block_on(perform(cli, app)).unwrap_or_else(|stop| {
        if !stop.message.is_empty() {
            print::complain(&stop.message);
        }
        stop.code
    });
    runtime.shutdown_background();
    ended.into()
}

async fn perform(cli: Cli, app: App) -> Result<Code, Stop> {
    let common = cli.common;
    match cli.noun {
        Noun::Run(verb) => run::run(&common, app, verb).await,
        #[cfg(feature = "server")]
        Noun::Dev(listen) => dev::dev(&common, app, listen).await,
        #[cfg(feature = "server")]
        Noun::Serve(listen) => serve::serve(&common, app, listen).await,
        Noun::Runs(verb) => runs::runs(&common, app, verb).await,
        Noun::Pipelines(verb) => pipelines::pipelines(&common, app, verb).await,
        Noun::Actors(verb) => actors::actors(&common, app, verb).await,
        Noun::Invocations(verb) => actors::invocations(&common, app, verb).await,
        Noun::Schedules(verb) => schedules::schedules(&common, app, verb).await,
        Noun::Policy(verb) => policy::policy(&common, app, verb).await,
        Noun::Keys(verb) => keys::keys(&common, app, verb).await,
        Noun::Principals(verb) => disabled::principals(&common, app, verb).await,
        Noun::Tenants(verb) => disabled::tenants(&common, app, verb).await,
        Noun::Why { id } => actors::why(&common, app, id).await,
        Noun::Approvals(Approvals::List(keep)) => runs::approvals(&common, app, keep).await,
        Noun::Approvals(Approvals::Show { run, stage }) => runs::approval(&common, app, run.id, stage).await,
        Noun::Approvals(Approvals::Approve(decision)) => runs::runs(&common, app, Runs::Approve(decision)).await,
        Noun::Approvals(Approvals::Reject(decision)) => runs::runs(&common, app, Runs::Reject(decision)).await,
        Noun::Stuck { longer_than, keep } => stuck::stuck(&common, app, longer_than.map(|span| span.0), keep).await,
        Noun::Replay { kind, since } => replay::replay(&common, app, kind, since.0).await,
        #[cfg(feature = "server")]
        Noun::Health => health::health(&common).await,
        Noun::Doctor => doctor::doctor(&common, app).await,
        Noun::DeadLetters(verb) => letters::dead_letters(&common, app, verb).await,
        Noun::Verify(verb) => verify::verify(&common, app, verb).await,
        Noun::Backup { to } => backup::backup(&common, app, to).await,
        Noun::Restore { from } => backup::restored(&common, from).await,
        Noun::Export { to } => export::export(&common, app, to).await,
        Noun::Import { file, shards } => export::imported(&common, file, shards).await,
        Noun::Config(verb) => settings::config(&common, app, verb),
        Noun::Init { name } => init::init(&common, name),
        Noun::Explain { code } => explain::explain(&common, code.as_deref()),
        Noun::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "selvedge", &mut script);
            print::raw(&script)?;
            Ok(Code::Done)
        }
        Noun::Man { to } => man::man(to.as_deref()),
    }
}
