//! A definition whose expressions are compiled and whose names are numbers: what a run works with.

use bytes::Bytes;
use serde_json::Value;
use std::collections::BTreeSet;

use super::definition::{Call, Definition, Mode, OnFailure, SleepTime, Stage};
use super::expression::{Expression, ExpressionError};
use super::template::Template;
use crate::policy::{Retry, Throttle, Timeout};
use crate::record::run::FALLBACK_ITEM;

/// A definition that cannot be run.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CompileError {
    /// An expression in it is wrong.
    #[error("pipeline `{pipeline}`, {place}: {source}")]
    Expression {
        /// Of which pipeline.
        pipeline: String,
        /// In which field.
        place: String,
        /// What is wrong.
        #[source]
        source: ExpressionError,
    },
    /// It says something that cannot be.
    #[error("pipeline `{pipeline}`, {place}: {message}")]
    Meaning {
        /// Of which pipeline.
        pipeline: String,
        /// In which field.
        place: String,
        /// What is wrong, and what to write instead.
        message: String,
    },
    /// The stored bytes are no definition.
    #[error("the stored definition does not decode ({reason}): run `selvedge verify` and restore from a backup")]
    Malformed {
        /// What the decoder says.
        reason: String,
    },
}

/// Which stages an expression reads.
#[derive(Clone, Default, Debug)]
pub struct Reads {
    /// Stages of which it reads anything.
    pub named: BTreeSet<u16>,
    /// Stages of which it reads outputs or failures: these lie in rows.
    pub rows: BTreeSet<u16>,
}

impl Reads {
    fn add(&mut self, other: &Reads) {
        self.named.extend(&other.named);
        self.rows.extend(&other.rows);
    }
}

/// A call with its key compiled.
#[derive(Clone, Debug)]
pub enum CompiledCall {
    /// An activity.
    Activity(String),
    /// A handler of an actor.
    Actor {
        /// The actor's type.
        actor: String,
        /// Its key.
        key: Template,
        /// The handler.
        handler: String,
    },
}

/// A limit that a task shares with those of other runs.
#[derive(Clone, Debug)]
pub struct SharedLimit {
    /// `stage PIPELINE.STAGE` or `activity NAME`.
    pub name: String,
    /// What it limits to.
    pub throttle: Throttle,
    /// One limit for each of its values.
    pub key: LimitKey,
}

/// What tells the limits of one name apart.
#[derive(Clone, Debug)]
pub enum LimitKey {
    /// There is one.
    None,
    /// An expression in the scope of the task.
    Task(Expression),
    /// An expression whose only root is `input`, the task's.
    Input(Expression),
}

impl SharedLimit {
    /// The limit of an activity. Errors: its key does not compile.
    pub fn of_activity(name: &str, throttle: &Throttle) -> Result<SharedLimit, ExpressionError> {
        let key = match &throttle.key {
            None => LimitKey::None,
            Some(text) => LimitKey::Input(Expression::compile(text)?),
        };
        Ok(SharedLimit { name: format!("activity {name}"), throttle: throttle.clone(), key })
    }
}

/// What a stage's failure calls.
#[derive(Clone, Debug)]
pub struct Fallback {
    /// What.
    pub call: CompiledCall,
    /// Its input, with `error` in scope; none gives the error itself.
    pub input: Option<Template>,
    /// When to try again.
    pub retry: Retry,
    /// How long it may take.
    pub timeout: Timeout,
    /// What it shares with other runs.
    pub limit: Option<SharedLimit>,
}

/// A stage, ready to run.
#[derive(Clone, Debug)]
pub struct CompiledStage {
    /// Stages that must have ended.
    pub depends_on: Vec<u16>,
    /// What its tasks call.
    pub call: Option<CompiledCall>,
    /// Whether it runs.
    pub when: Option<Expression>,
    /// Each task's input.
    pub input: Option<Template>,
    /// Each task's output.
    pub output: Option<Template>,
    /// A scatter's list.
    pub over: Option<Expression>,
    /// Which items stay.
    pub keep: Option<Expression>,
    /// A gather's group key.
    pub group_by: Option<Expression>,
    /// What a person sees.
    pub show: Option<Template>,
    /// When a sleep ends.
    pub until: Option<Template>,
    /// What a failure calls.
    pub fallback: Option<Fallback>,
    /// A gather's stages.
    pub members: Vec<u16>,
    /// Gathers with `where` or `group_by` over this stage, and its place among their stages.
    pub feeds: Vec<(u16, u16)>,
    /// What `when` reads.
    pub when_reads: Reads,
    /// What `over`, `where`, `show` and `until` read.
    pub begin_reads: Reads,
    /// Whether `output` reads the group's items: they then stay in memory while its task runs.
    pub output_reads_group: bool,
    /// What is read for each task, before and after.
    pub task_reads: Reads,
    /// When to try again.
    pub retry: Retry,
    /// How long a task may take.
    pub timeout: Timeout,
    /// What its tasks share with those of other runs.
    pub limit: Option<SharedLimit>,
}

impl CompiledStage {
    /// What a task of it shares with those of other runs.
    #[must_use]
    pub fn limit_of(&self, item: u32) -> Option<&SharedLimit> {
        match &self.fallback {
            Some(fallback) if item == FALLBACK_ITEM => fallback.limit.as_ref(),
            _ => self.limit.as_ref(),
        }
    }

    /// Whether it is a gather whose items are chosen or grouped by index rows.
    #[must_use]
    pub fn indexed(&self) -> bool {
        !self.members.is_empty() && (self.keep.is_some() || self.group_by.is_some())
    }
}

/// A definition, ready to run.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// As it was validated.
    pub definition: Definition,
    /// Its JSON, as it is stored.
    pub bytes: Bytes,
    /// Its version, as [`super::parse::version`] gave it when the file was read.
    pub version: String,
    /// In the order of the definition.
    pub stages: Vec<CompiledStage>,
    /// The run's output.
    pub output: Option<Template>,
    /// What that reads.
    pub output_reads: Reads,
}

impl Compiled {
    /// Reads a stored definition and compiles it.
    pub fn from_bytes(bytes: &[u8], version: String) -> Result<Compiled, CompileError> {
        let definition = serde_json::from_slice(bytes).map_err(|error| CompileError::Malformed { reason: error.to_string() })?;
        Compiled::new(definition, version)
    }

    /// Compiles. The first thing that is wrong is the error; a validated definition has none.
    pub fn new(definition: Definition, version: String) -> Result<Compiled, CompileError> {
        // Invariant: a definition consists of maps with string keys, strings and finite numbers; JSON has no error for these.
        let bytes = Bytes::from(serde_json::to_vec(&definition).unwrap_or_default());
        let compiler = Compiler { definition: &definition };
        let mut stages = Vec::with_capacity(definition.stages.len());
        for stage in &definition.stages {
            stages.push(compiler.stage(stage)?);
        }
        for gather in 0..stages.len() {
            if stages[gather].indexed() {
                for (place, member) in stages[gather].members.clone().into_iter().enumerate() {
                    stages[usize::from(member)].feeds.push((gather as u16, place as u16));
                }
            }
        }
        for (index, stage) in stages.iter().enumerate() {
            if let Some(member) = stage.members.iter().find(|member| is_plain_gather(&definition.stages[usize::from(**member)])) {
                let (name, other) = (&definition.stages[index].name, &definition.stages[usize::from(*member)].name);
                return Err(compiler.meaning(name, "stages", format!("`{other}` is a gather without a call: name the stages that it gathers")));
            }
            if stage.feeds.len() > 32 {
                let name = &definition.stages[index].name;
                return Err(compiler.meaning(
                    name,
                    "stages",
                    "it is gathered with `where` or `group_by` by more than 32 stages (limit: gathers = 32)".to_owned(),
                ));
            }
        }
        let output = compiler.template("output", &definition.output)?;
        let output_reads = output.as_ref().map(|template| compiler.reads_of(&template.expressions())).unwrap_or_default();
        Ok(Compiled { bytes, version, stages, output, output_reads, definition })
    }
}

/// Whether it is a gather that gives what it gathered.
#[must_use]
pub fn is_plain_gather(stage: &Stage) -> bool {
    matches!(stage.mode, Mode::Gather { .. }) && stage.call.is_none()
}

struct Compiler<'a> {
    definition: &'a Definition,
}

impl Compiler<'_> {
    fn meaning(&self, stage: &str, field: &str, message: String) -> CompileError {
        CompileError::Meaning { pipeline: self.definition.name.clone(), place: format!("stage `{stage}`, `{field}`"), message }
    }

    fn wrong(&self, place: &str, source: ExpressionError) -> CompileError {
        CompileError::Expression { pipeline: self.definition.name.clone(), place: place.to_owned(), source }
    }

    fn expression(&self, place: &str, text: Option<&String>) -> Result<Option<Expression>, CompileError> {
        text.map(|text| Expression::compile(text)).transpose().map_err(|error| self.wrong(place, error))
    }

    fn template(&self, place: &str, value: &Value) -> Result<Option<Template>, CompileError> {
        if value.is_null() {
            return Ok(None);
        }
        Template::compile(value).map(Some).map_err(|error| self.wrong(place, error))
    }

    fn call(&self, place: &str, call: &Call) -> Result<CompiledCall, CompileError> {
        Ok(match call {
            Call::Activity(name) => CompiledCall::Activity(name.clone()),
            Call::Actor { actor, key, handler } => {
                let key = Template::compile(&Value::String(key.clone())).map_err(|error| self.wrong(place, error))?;
                CompiledCall::Actor { actor: actor.clone(), key, handler: handler.clone() }
            }
        })
    }

    fn policies(&self, call: Option<&Call>) -> (Retry, Timeout) {
        match call {
            Some(Call::Activity(name)) => match self.definition.activities.get(name) {
                Some(activity) => (activity.retry.clone(), activity.timeout.clone()),
                None => (Retry::default(), Timeout::default()),
            },
            // A message to an actor is retried by its own policy where it is handled; its answer is final.
            Some(Call::Actor { .. }) | None => (Retry::none(), Timeout { attempt: None, total: None }),
        }
    }

    /// The throttle of a stage with a key; one without is the run's own.
    fn stage_limit(&self, stage: &Stage, throttle: &Throttle) -> Result<Option<SharedLimit>, CompileError> {
        let place = format!("stage `{}`, `throttle.key`", stage.name);
        let Some(key) = self.expression(&place, throttle.key.as_ref())? else { return Ok(None) };
        let name = format!("stage {}.{}", self.definition.name, stage.name);
        Ok(Some(SharedLimit { name, throttle: throttle.clone(), key: LimitKey::Task(key) }))
    }

    fn activity_limit(&self, call: Option<&Call>) -> Result<Option<SharedLimit>, CompileError> {
        let Some(Call::Activity(name)) = call else { return Ok(None) };
        let Some(throttle) = self.definition.activities.get(name).and_then(|activity| activity.throttle.as_ref()) else { return Ok(None) };
        let limit = SharedLimit::of_activity(name, throttle);
        limit.map(Some).map_err(|error| self.wrong(&format!("activity `{name}`, `throttle.key`"), error))
    }

    fn number(&self, stage: &Stage, field: &str, name: &str) -> Result<u16, CompileError> {
        let found = self.definition.stages.iter().position(|other| other.name == name);
        found.and_then(|index| u16::try_from(index).ok()).ok_or_else(|| self.meaning(&stage.name, field, format!("there is no stage `{name}`")))
    }

    fn reads_of(&self, expressions: &[Expression]) -> Reads {
        let mut reads = Reads::default();
        let all = || 0..self.definition.stages.len() as u16;
        for read in expressions.iter().flat_map(|expression| expression.reads()) {
            let mut path = read.path.iter().map(|(name, _)| name.as_str());
            match path.next() {
                Some("stages") => {}
                Some(_) => continue,
                None => {
                    reads.add(&Reads { named: all().collect(), rows: all().collect() });
                    continue;
                }
            }
            let Some(name) = path.next() else {
                reads.add(&Reads { named: all().collect(), rows: all().collect() });
                continue;
            };
            let Some(index) = self.definition.stages.iter().position(|stage| stage.name == name) else {
                continue;
            };
            reads.named.insert(index as u16);
            if !matches!(path.next(), Some("status" | "attempts")) {
                reads.rows.insert(index as u16);
            }
        }
        reads
    }

    fn stage(&self, stage: &Stage) -> Result<CompiledStage, CompileError> {
        let place = |field: &str| format!("stage `{}`, `{field}`", stage.name);
        let mut depends_on = Vec::new();
        for name in &stage.depends_on {
            depends_on.push(self.number(stage, "depends_on", name)?);
        }
        let call = stage.call.as_ref().map(|call| self.call(&place("call"), call)).transpose()?;
        let when = self.expression(&place("when"), stage.when.as_ref())?;
        let input = self.template(&place("input"), &stage.input)?;
        let output = self.template(&place("output"), &stage.output)?;
        let (retry, timeout) = self.policies(stage.call.as_ref());
        let mut compiled = CompiledStage {
            depends_on,
            call,
            when_reads: self.reads_of(when.as_slice()),
            when,
            input,
            output,
            over: None,
            keep: None,
            group_by: None,
            show: None,
            until: None,
            fallback: None,
            members: Vec::new(),
            feeds: Vec::new(),
            begin_reads: Reads::default(),
            output_reads_group: false,
            task_reads: Reads::default(),
            retry: stage.retry.clone().unwrap_or(retry),
            timeout: stage.timeout.clone().unwrap_or(timeout),
            limit: match &stage.throttle {
                Some(throttle) => self.stage_limit(stage, throttle)?,
                None => self.activity_limit(stage.call.as_ref())?,
            },
        };
        match &stage.mode {
            Mode::Single | Mode::WaitSignal { .. } | Mode::Sleep(SleepTime::For(_)) => {}
            Mode::Scatter { over, keep, .. } => {
                compiled.over = self.expression(&place("over"), Some(over))?;
                compiled.keep = self.expression(&place("where"), keep.as_ref())?;
            }
            Mode::Gather { stages, keep, group_by, .. } => {
                for name in stages {
                    let member = self.number(stage, "stages", name)?;
                    compiled.members.push(member);
                    if !compiled.depends_on.contains(&member) {
                        compiled.depends_on.push(member);
                    }
                }
                if compiled.members.is_empty() {
                    return Err(self.meaning(&stage.name, "stages", "a gather names at least one stage".to_owned()));
                }
                compiled.keep = self.expression(&place("where"), keep.as_ref())?;
                compiled.group_by = self.expression(&place("group_by"), group_by.as_ref())?;
                let reads = self.reads_of(&[compiled.keep.as_slice(), compiled.group_by.as_slice()].concat());
                if !reads.named.is_empty() {
                    let message = "in a gather, `where` and `group_by` are evaluated when an item ends: they read `item`, `input` and `run` only".to_owned();
                    return Err(self.meaning(&stage.name, "group_by", message));
                }
            }
            Mode::Approval { show, .. } => compiled.show = self.template(&place("show"), show)?,
            Mode::Sleep(SleepTime::Until(until)) => compiled.until = self.template(&place("until"), &Value::String(until.clone()))?,
        }
        if let OnFailure::Call { call: called, input } = &stage.on_failure {
            let (retry, timeout) = self.policies(Some(called));
            let call = self.call(&place("on_failure.call"), called)?;
            let limit = self.activity_limit(Some(called))?;
            compiled.fallback = Some(Fallback { call, input: self.template(&place("on_failure.input"), input)?, retry, timeout, limit });
        }
        let outputs: Vec<Expression> = compiled.output.iter().flat_map(|template| template.expressions()).collect();
        let reads_group = |read: &super::Read| read.root() == Some("group") && read.path.get(1).is_none_or(|(name, _)| name != "key");
        compiled.output_reads_group = outputs.iter().any(|expression| expression.reads().iter().any(reads_group));
        let mut begin: Vec<Expression> = compiled.over.iter().cloned().collect();
        if compiled.members.is_empty() {
            begin.extend(compiled.keep.iter().cloned());
        }
        begin.extend(compiled.show.iter().chain(&compiled.until).flat_map(|template| template.expressions()));
        let mut task: Vec<Expression> = compiled.input.iter().chain(&compiled.output).flat_map(|template| template.expressions()).collect();
        for call in compiled.call.iter().chain(compiled.fallback.iter().map(|fallback| &fallback.call)) {
            if let CompiledCall::Actor { key, .. } = call {
                task.extend(key.expressions());
            }
        }
        task.extend(compiled.fallback.iter().filter_map(|fallback| fallback.input.as_ref()).flat_map(|template| template.expressions()));
        if let Some(SharedLimit { key: LimitKey::Task(key), .. }) = &compiled.limit {
            task.push(key.clone());
        }
        compiled.begin_reads = self.reads_of(&begin);
        compiled.task_reads = self.reads_of(&task);
        Ok(compiled)
    }
}
