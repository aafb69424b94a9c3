//! The words of the command line.

mod rights;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use selvedge_kernel::policy::Span;

#[cfg(feature = "cedar")]
pub use rights::Asked;
pub use rights::{Keys, OfTenant, Policy, Principals, See, Tenants};

/// Durable actors and pipelines: what was accepted survives any kill, and no finished step is done twice.
#[derive(Parser, Debug)]
#[command(name = "selvedge", version, propagate_version = true, disable_help_subcommand = true, after_help = CODES)]
pub struct Cli {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub noun: Noun,
}

const CODES: &str = "Exit codes: 0 done, 1 the work failed, 2 the work waits or is blocked, 64 usage, 69 not reachable, \
                     77 not permitted, 78 configuration.";

/// What every verb takes.
#[derive(Args, Clone, Debug, Default)]
pub struct Common {
    /// The data directory [default: ./.selvedge]
    #[arg(long, global = true, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// A server instead of a data directory, as in http://127.0.0.1:7420; its key is read from SELVEDGE_KEY
    #[cfg(feature = "server")]
    #[arg(long, global = true, value_name = "URL", env = "SELVEDGE_SERVER", hide_env_values = true)]
    pub server: Option<String>,
    /// Certificates in PEM that a server with https:// is trusted by [default: those of this system]
    #[cfg(feature = "server")]
    #[arg(long, global = true, value_name = "FILE", env = "SELVEDGE_CACERT", hide_env_values = true)]
    pub cacert: Option<PathBuf>,
    /// The configuration [default: ./selvedge.yaml, if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The manifest of actors and activities [default: app.yaml beside the pipeline, then here]
    #[arg(long, global = true, value_name = "FILE")]
    pub app: Option<PathBuf>,
    /// How results are printed
    #[arg(short = 'o', long = "output", global = true, value_name = "FORMAT", default_value = "text")]
    pub output: Output,
}

impl Common {
    /// Whether a server is asked, and no data directory.
    pub fn is_remote(&self) -> bool {
        #[cfg(feature = "server")]
        return self.server.is_some();
        #[cfg(not(feature = "server"))]
        return false;
    }
}

/// How results are printed.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// Where the HTTP API is served.
#[cfg(feature = "server")]
#[derive(Args, Debug)]
pub struct Listen {
    /// Where to answer [default: 127.0.0.1:7420]
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
}

#[derive(Subcommand, Debug)]
pub enum Noun {
    /// Make a folder that runs: a pipeline, a Python activity, a schedule, a test
    Init {
        /// The new folder [default: this one]
        name: Option<PathBuf>,
    },
    /// Run a pipeline to its end; after a kill, the same command goes on where it was
    Run(Run),
    /// Serve the HTTP API on a data directory, with a development key that is made once
    #[cfg(feature = "server")]
    Dev(Listen),
    /// Serve the HTTP API on a data directory, to those who have a key
    #[cfg(feature = "server")]
    Serve(Listen),
    /// Check, store, show, compare and start pipelines
    #[command(subcommand)]
    Pipelines(Pipelines),
    /// Look at runs, steer them, answer them
    #[command(subcommand)]
    Runs(Runs),
    /// Look at schedules, pause, resume and fire them
    #[command(subcommand)]
    Schedules(Schedules),
    /// Make, list and revoke API keys
    #[command(subcommand)]
    Keys(Keys),
    /// Disable principals, and enable them again
    #[command(subcommand)]
    Principals(Principals),
    /// Disable whole tenants, and enable them again
    #[command(subcommand)]
    Tenants(Tenants),
    /// Ask policies who may do what, and look at what was decided
    #[command(subcommand)]
    Policy(Policy),
    /// Talk to actors
    #[command(subcommand)]
    Actors(Actors),
    /// Look at single messages being handled
    #[command(subcommand)]
    Invocations(Invocations),
    /// Why is this run or invocation where it is?
    Why {
        /// run_… or inv_…
        id: String,
    },
    /// Questions to people
    #[command(subcommand)]
    Approvals(Approvals),
    /// Everything that has waited for long, the longest wait first, and what it waits for
    Stuck {
        /// For how long, as in 90s, 15m or 2h; if not said, as long as its type expects (`expected_within`, 1h)
        #[arg(long, value_name = "SPAN")]
        longer_than: Option<Span>,
        #[command(flatten)]
        keep: Keep,
    },
    /// Replay recorded journals with the code at hand, before a deploy: what would block, and why
    Replay {
        /// Those of actors of this type alone
        #[arg(long = "type", value_name = "TYPE")]
        kind: Option<String>,
        /// Those of what is open, and of what came within this time, as in 90s, 2h or 7d
        #[arg(long, value_name = "SPAN", default_value = "7d")]
        since: Span,
    },
    /// Whether a server is ready, and what it lacks if it is not: the one that --server names, else the one of this configuration
    #[cfg(feature = "server")]
    Health,
    /// Store, log, disk, clock, limits, executors, dead letters: what is right, and what to do about the rest
    Doctor,
    /// Messages that could not be handled
    #[command(subcommand)]
    DeadLetters(DeadLetters),
    /// Write a backup into an empty or new directory, while the work goes on
    Backup {
        /// Where to
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
    },
    /// Make a data directory, where none is yet, of a backup
    Restore {
        /// The directory of the backup
        #[arg(long, value_name = "DIR")]
        from: PathBuf,
    },
    /// Write everything that a data directory holds into a file, for another number of shards, another disk or another
    /// version, while the work goes on
    Export {
        /// Where to: a new file
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
    },
    /// Make a data directory, where none is yet, of an export
    Import {
        /// The file of the export
        file: PathBuf,
        /// How many shards it is to have
        #[arg(long, value_name = "NUMBER", default_value_t = selvedge_engine::engine::SHARDS)]
        shards: u16,
    },
    /// Walk every chain and ledger, and name the first entry that does not fit
    Verify(Verify),
    /// The configuration in force
    #[command(subcommand)]
    Config(ConfigVerb),
    /// What an error means, by its code, and what to do about it
    Explain {
        /// The code, for example call_cycle or limit_body; all of them without it
        code: Option<String>,
    },
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man {
        /// Write it and a page for each verb into this folder instead
        #[arg(long, value_name = "DIR")]
        to: Option<PathBuf>,
    },
}

/// What a list keeps.
#[derive(Args, Debug)]
pub struct Keep {
    /// What to keep, as in 'status:failed age>1h -pipeline:order attr.customer:ada "text"'
    #[arg(long = "where", value_name = "FILTER", default_value = "", hide_default_value = true, allow_hyphen_values = true)]
    pub filter: String,
}

/// `run`
#[derive(Args, Debug)]
pub struct Run {
    /// The pipeline's file
    pub pipeline: PathBuf,
    /// The run's input: JSON, or @FILE
    #[arg(long, value_name = "JSON|@FILE")]
    pub input: Option<String>,
    /// Start a new run, even if one of this file and input is open
    #[arg(long)]
    pub new: bool,
}

#[derive(Subcommand, Debug)]
pub enum Pipelines {
    /// Every error at once, with line, column and a hint
    Check {
        /// Pipelines [default: those that app.yaml names]
        files: Vec<PathBuf>,
    },
    /// Store one under its name; prints what differs from the current version
    Put {
        /// Its file
        file: PathBuf,
    },
    /// Its versions, the next five fires of its schedule, and its open runs by version; with @VERSION, what that says
    Show {
        /// NAME or NAME@VERSION; the beginning of a version is enough
        name: String,
    },
    /// All that are stored here, and all that app.yaml names
    List,
    /// Print the JSON Schema of a pipeline's file, for editors
    Schema {
        /// That of app.yaml instead
        #[arg(long = "manifest")]
        of_manifest: bool,
    },
    /// What differs between two versions
    Diff {
        /// Its name
        name: String,
        /// The beginning of a version
        before: String,
        /// The beginning of another one
        after: String,
    },
    /// Start a run of a stored pipeline, or of one that app.yaml names; prints the run
    Start {
        /// NAME or NAME@VERSION
        name: String,
        /// The run's input: JSON, or @FILE
        #[arg(long, value_name = "JSON|@FILE", default_value = "{}")]
        input: String,
        /// The same key, the same run
        #[arg(long, value_name = "KEY")]
        key: Option<String>,
        /// Print what happens to it until it ends
        #[arg(long)]
        follow: bool,
    },
}

#[derive(Subcommand, Debug)]
pub enum Schedules {
    /// All schedules, with their next fires and what they did
    List(Keep),
    /// Why a schedule is where it is
    Show {
        /// The pipeline that it starts
        pipeline: String,
    },
    /// Fire no more until it is resumed
    Pause {
        /// The pipeline that it starts
        pipeline: String,
    },
    /// Fire again, from now on
    Resume {
        /// The pipeline that it starts
        pipeline: String,
    },
    /// Fire now, whatever is under way
    Fire {
        /// The pipeline that it starts
        pipeline: String,
    },
    /// Take it away, until a process opens the data directory with its pipeline again
    Remove {
        /// The pipeline that it starts
        pipeline: String,
    },
}

#[derive(Subcommand, Debug)]
pub enum Runs {
    /// All runs, newest first
    List(Keep),
    /// One run, stage by stage
    Show(RunId),
    /// Print what happens to a run until it ends
    Follow(RunId),
    /// What has happened to a run so far, by number
    Journal(RunId),
    /// End a run as cancelled
    Cancel {
        #[command(flatten)]
        run: RunId,
        /// Why; it stays with the run
        #[arg(long, default_value = "cancelled by hand")]
        reason: String,
    },
    /// Start nothing new; what runs comes to its end
    Pause(RunId),
    /// Go on after a pause
    Resume(RunId),
    /// Take up what failed or is blocked; what is finished stays finished
    Retry {
        #[command(flatten)]
        run: RunId,
        /// Start this stage over, and every stage that depends on it
        #[arg(long, value_name = "STAGE")]
        from: Option<String>,
        /// Run only failed tasks again, those that `continue` has passed over among them; what depends on them starts over
        #[arg(long)]
        failed_only: bool,
    },
    /// Start a new run that takes over the stages of an ended one that ended well
    Fork(RunFork),
    /// Say yes to an approval
    Approve(Decision),
    /// Say no to an approval
    Reject(Decision),
    /// Deliver a signal
    Signal {
        #[command(flatten)]
        run: RunId,
        /// The signal's name
        name: String,
        #[command(flatten)]
        data: Data,
        /// The same key, the same signal
        #[arg(long, value_name = "KEY")]
        idempotency_key: Option<String>,
    },
}

#[derive(Args, Debug)]
pub struct RunId {
    /// run_…
    pub id: String,
}

#[derive(Args, Debug)]
pub struct Decision {
    #[command(flatten)]
    pub run: RunId,
    /// The stage that asks, where more than one does
    #[arg(long)]
    pub stage: Option<String>,
    /// Who decides [default: the user who is logged in]
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
    /// A remark that stays with the decision
    #[arg(long, default_value = "")]
    pub comment: String,
}

#[derive(Args, Debug)]
pub struct Data {
    /// Its payload: JSON, or @FILE
    #[arg(long = "data-json", value_name = "JSON|@FILE", default_value = "null")]
    pub json: String,
}

#[derive(Subcommand, Debug)]
pub enum Actors {
    /// Call a handler and print its result
    Call(Call),
    /// Send to a handler: durable when this returns, handled later
    Send(Message),
    /// Deliver a signal to whoever waits for it at that actor; it is kept until somebody does
    Signal {
        #[command(flatten)]
        actor: Actor,
        /// The signal's name
        name: String,
        #[command(flatten)]
        data: Data,
        /// The same key, the same signal
        #[arg(long, value_name = "KEY")]
        idempotency_key: Option<String>,
    },
    /// The state of an actor, and changes of it by hand
    State(State),
    /// Those with a state or a message, by type and key
    List(Keep),
}

/// `actors state`
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct State {
    /// The actor: TYPE/KEY
    #[arg(required = true)]
    pub actor: Option<String>,
    /// Show each entry's etag, which `--if-match` takes
    #[arg(long)]
    pub etags: bool,
    #[command(subcommand)]
    pub verb: Option<StateVerb>,
}

#[derive(Subcommand, Debug)]
pub enum StateVerb {
    /// Set an entry, behind what the actor handles now
    Set {
        #[command(flatten)]
        actor: Actor,
        #[command(flatten)]
        edited: Edited,
        /// Its value: JSON, or @FILE
        #[arg(value_name = "JSON|@FILE")]
        value: String,
    },
    /// Remove an entry, behind what the actor handles now
    Delete {
        #[command(flatten)]
        actor: Actor,
        #[command(flatten)]
        edited: Edited,
    },
}

/// The entry that is changed by hand.
#[derive(Args, Debug)]
pub struct Edited {
    /// The entry's name
    pub name: String,
    /// Only if the entry has this etag, or `none` for one that is not there
    #[arg(long, value_name = "ETAG")]
    pub if_match: Option<String>,
    /// Why; it stays with the change
    #[arg(long)]
    pub reason: String,
}

#[derive(Args, Debug)]
pub struct Actor {
    /// The actor: TYPE/KEY
    pub actor: String,
}

#[derive(Args, Debug)]
pub struct Message {
    #[command(flatten)]
    pub actor: Actor,
    /// The handler
    pub handler: String,
    /// The input: JSON, or @FILE
    #[arg(long, value_name = "JSON|@FILE", default_value = "null")]
    pub input: String,
    /// The same key, the same invocation
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
}

/// `actors call`
#[derive(Args, Debug)]
pub struct Call {
    #[command(flatten)]
    pub message: Message,
    /// Print the invocation's id and do not wait
    #[arg(long, conflicts_with = "wait")]
    pub no_wait: bool,
    /// Wait at most so long, as in 30s; the invocation goes on
    #[arg(long, value_name = "SPAN")]
    pub wait: Option<Span>,
}

#[derive(Args, Debug)]
pub struct InvocationId {
    /// inv_…
    pub id: String,
}

#[derive(Subcommand, Debug)]
pub enum Invocations {
    /// Those that are open, newest first
    List {
        /// Those that have ended as well
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        keep: Keep,
    },
    /// Where it stands, and its result once it has one
    Show(InvocationId),
    /// Ask it to end: what it waits for gives `cancelled`
    Cancel {
        #[command(flatten)]
        invocation: InvocationId,
        /// Why; it stays with the invocation
        #[arg(long, default_value = "cancelled by hand")]
        reason: String,
    },
    /// End it at once; none of its code runs
    Kill {
        #[command(flatten)]
        invocation: InvocationId,
        /// Why; it stays with the invocation
        #[arg(long)]
        reason: String,
    },
    /// Look at a blocked one again, or at all blocked ones that a filter keeps
    Retry(RetryVerb),
    /// What it has recorded, entry by entry, also after its end
    Journal(InvocationId),
    /// Decide one of its operations by hand, and let it go on
    Resolve(Resolve),
    /// Start a new one of the same message with a copy of what it has recorded
    Fork(Fork),
}

/// `invocations retry`
#[derive(Args, Debug)]
pub struct RetryVerb {
    /// inv_…
    #[arg(conflicts_with = "filter")]
    pub id: Option<String>,
    /// Those that are blocked and fit, as in 'type:order age>1h'; without --yes it only says which
    #[arg(long = "where", value_name = "FILTER")]
    pub filter: Option<String>,
    /// Do it
    #[arg(long, conflicts_with = "id")]
    pub yes: bool,
}

/// `invocations resolve`
#[derive(Args, Debug)]
pub struct Resolve {
    #[command(flatten)]
    pub invocation: InvocationId,
    /// The number of the operation, as `journal` and `why` show it: 3 or '#3'
    #[arg(value_parser = operation)]
    pub entry: Operation,
    /// What it gives: JSON, or @FILE
    #[arg(long, value_name = "JSON|@FILE", conflicts_with = "error", required_unless_present = "error")]
    pub result: Option<String>,
    /// The error that it ends with
    #[arg(long, value_name = "CODE:MESSAGE")]
    pub error: Option<String>,
    /// Why; it stays in the journal
    #[arg(long)]
    pub reason: String,
}

/// `runs fork`
#[derive(Args, Debug)]
pub struct RunFork {
    #[command(flatten)]
    pub run: RunId,
    /// Do this stage anew, and every stage that depends on it [default: what did not end well]
    #[arg(long, value_name = "STAGE")]
    pub from: Option<String>,
    /// The input of the new run: JSON, or @FILE [default: that of the old one]
    #[arg(long, value_name = "JSON|@FILE")]
    pub input: Option<String>,
    /// Why; it stays in the journal of the new run
    #[arg(long)]
    pub reason: String,
}

/// `invocations fork`
#[derive(Args, Debug)]
pub struct Fork {
    #[command(flatten)]
    pub invocation: InvocationId,
    /// The first operation that is not taken over [default: the one that does not fit; of one that has ended, none]
    #[arg(long, value_name = "ENTRY", value_parser = operation)]
    pub from: Option<Operation>,
    /// Kill it first, if it is blocked: it holds its actor
    #[arg(long)]
    pub kill_original: bool,
    /// Why; it stays in the journal
    #[arg(long)]
    pub reason: String,
}

/// The number of an operation.
#[derive(Clone, Copy, Debug)]
pub struct Operation(pub u32);

fn operation(text: &str) -> Result<Operation, String> {
    let number = text.strip_prefix('#').unwrap_or(text).parse();
    number.map(Operation).map_err(|_| format!("`{text}` is no number of an operation: write it as `selvedge invocations journal ID` shows it, 3 or '#3'"))
}

#[derive(Subcommand, Debug)]
pub enum Approvals {
    /// Those that are open, then those that were answered: who, when, with which remark
    List(Keep),
    /// One, with what it shows to whom it asks
    Show {
        #[command(flatten)]
        run: RunId,
        /// The stage that asks, where more than one does
        #[arg(long)]
        stage: Option<String>,
    },
    /// Say yes to the approval of a run
    Approve(Decision),
    /// Say no to the approval of a run
    Reject(Decision),
}

#[derive(Subcommand, Debug)]
pub enum DeadLetters {
    /// All of them
    List(Keep),
    /// One, with its whole input
    Show(InvocationId),
    /// Send one again, behind what waits at its actor; prints the invocation that it becomes
    Redrive {
        #[command(flatten)]
        letter: InvocationId,
        /// Another input than its own: JSON, or @FILE
        #[arg(long, value_name = "JSON|@FILE")]
        input: Option<String>,
    },
}

/// `verify`
#[derive(Args, Debug)]
pub struct Verify {
    /// The ledgers alone, without the chains that they name
    #[arg(long)]
    pub quick: bool,
    /// Walk nothing: print the head of each ledger, to be kept elsewhere
    #[arg(long, conflicts_with_all = ["quick", "against"])]
    pub heads: bool,
    /// Compare with heads that were kept: what lay behind them must still be there
    #[arg(long, value_name = "FILE")]
    pub against: Option<PathBuf>,
}

#[derive(Subcommand, Debug)]
pub enum ConfigVerb {
    /// Every error at once, with where it stands: of the configuration, and of the policies, manifest, pipelines, certificates and secrets that it refers to
    Check,
    /// Every value, with where it came from
    Show,
}
