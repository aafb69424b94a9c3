//! A definition whose expressions are compiled and whose names are numbers: what a run works with.

use bytes::Bytes;
use serde_json::Value;
use std::collections::BTreeSet;

use super::definition::{Call, Compensate, Definition, Executor, Http, Mode, OnFailure, Quorum, Rest, SleepTime, Stage, Task};
use super::expression::{Expression, ExpressionError};
use super::shared::{LimitKey, SharedBreaker, SharedLimit, any_host};
use super::template::Template;
use crate::policy::{Breaker, Retry, Throttle, Timeout};

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
    #[error("pipeline `{pipeline}`, stage `{stage}`, `{field}`: {message}")]
    Meaning {
        /// Of which pipeline.
        pipeline: String,
        /// In which stage.
        stage: String,
        /// In which field.
        field: String,
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
    /// Another pipeline.
    Pipeline(String),
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

/// What a task calls, ready to run.
#[derive(Clone, Debug)]
pub struct CompiledTask {
    /// What.
    pub call: CompiledCall,
    /// Its input; none gives the item, the list or the error itself.
    pub input: Option<Template>,
    /// When to try again.
    pub retry: Retry,
    /// How long it may take.
    pub timeout: Timeout,
    /// Whether the file says when to try again: else an activity that is registered says it.
    pub retry_written: bool,
    /// Whether the file says how long it may take.
    pub timeout_written: bool,
    /// What it shares with tasks of other runs.
    pub limit: Option<SharedLimit>,
    /// What stops it for a while when its target fails.
    pub breaker: Option<SharedBreaker>,
    /// Whether the stage has a throttle: then the activity's is not asked.
    pub throttle_written: bool,
}

/// A stage, ready to run.
#[derive(Clone, Debug)]
pub struct CompiledStage {
    /// Stages that must have ended.
    pub depends_on: Vec<u16>,
    /// What its tasks call: none, one for all, one for each branch, or map and reduce.
    pub tasks: Vec<CompiledTask>,
    /// Whether it runs.
    pub when: Option<Expression>,
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
    pub fallback: Option<CompiledTask>,
    /// A gather's stages.
    pub members: Vec<u16>,
    /// So many of them have to give an output; none: all have to end.
    pub quorum: Option<u32>,
    /// The stage of the plan that undoes it.
    pub undo: Option<u16>,
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
}

impl CompiledStage {
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
    /// What a run works on: the stages of the definition in their order, then one for each `compensate`.
    pub plan: Vec<Stage>,
    /// The stages of the plan, ready to run.
    pub stages: Vec<CompiledStage>,
    /// By what runs stand in line, if they do.
    pub line_key: Option<Expression>,
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
        let mut plan = definition.stages.clone();
        let mut stages = Vec::with_capacity(plan.len());
        for stage in &definition.stages {
            stages.push(compiler.stage(stage)?);
        }
        for (of, stage) in definition.stages.iter().enumerate() {
            if let Some(compensate) = &stage.compensate {
                stages[of].undo = Some(plan.len() as u16);
                let undo = undo(of as u16, stage, compensate);
                stages.push(compiler.stage(&undo)?);
                plan.push(undo);
            }
        }
        for gather in 0..stages.len() {
            if stages[gather].indexed() {
                for (place, member) in stages[gather].members.clone().into_iter().enumerate() {
                    stages[usize::from(member)].feeds.push((gather as u16, place as u16));
                }
            }
        }
        for (index, stage) in stages.iter().enumerate() {
            if let Some(member) = stage.members.iter().find(|member| is_plain_gather(&plan[usize::from(**member)])) {
                let (name, other) = (&plan[index].name, &plan[usize::from(*member)].name);
                return Err(compiler.meaning(name, "stages", format!("`{other}` is a gather without a call: name the stages that it gathers")));
            }
            if let Some(count) = stage.quorum {
                compiler.quorum(index, count, &stages)?;
            }
            if stage.feeds.len() > 32 {
                return Err(compiler.meaning(
                    &plan[index].name,
                    "stages",
                    "it is gathered with `where` or `group_by` by more than 32 stages (limit: gathers = 32)".to_owned(),
                ));
            }
        }
        let line_key = compiler.expression("concurrency.key", definition.concurrency.as_ref().and_then(|concurrency| concurrency.key.as_ref()))?;
        let output = compiler.template("output", &definition.output)?;
        let output_reads = output.as_ref().map(|template| compiler.reads_of(&template.expressions())).unwrap_or_default();
        Ok(Compiled { bytes, version, plan, stages, line_key, output, output_reads, definition })
    }
}

/// Whether it is a gather that gives what it gathered.
#[must_use]
pub fn is_plain_gather(stage: &Stage) -> bool {
    matches!(stage.mode, Mode::Gather { .. }) && stage.call.is_none()
}

/// How the name of a stage ends that undoes another one; no stage of a file has a name with a dot.
pub const UNDOES: &str = ".compensate";

/// The stage that undoes another one: its tasks are the finished tasks of that stage, the last one first.
fn undo(of: u16, stage: &Stage, compensate: &Compensate) -> Stage {
    Stage {
        name: format!("{}{UNDOES}", stage.name),
        mode: Mode::Undo { of },
        call: Some(compensate.call.clone()),
        depends_on: Vec::new(),
        when: None,
        input: compensate.input.clone(),
        output: Value::Null,
        retry: compensate.retry.clone(),
        timeout: compensate.timeout.clone(),
        // A key reads what is in scope of the stage's own tasks, and not here: the rest of it holds in this run.
        throttle: stage.throttle.as_ref().map(|throttle| Throttle { key: None, ..throttle.clone() }),
        breaker: None,
        compensate: None,
        // What cannot be undone is reported, and the rest is undone all the same.
        on_failure: OnFailure::Continue { max_failed: None },
    }
}

struct Compiler<'a> {
    definition: &'a Definition,
}

impl Compiler<'_> {
    fn meaning(&self, stage: &str, field: &str, message: String) -> CompileError {
        CompileError::Meaning { pipeline: self.definition.name.clone(), stage: stage.to_owned(), field: field.to_owned(), message }
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
            Call::Pipeline(name) => CompiledCall::Pipeline(name.clone()),
            Call::Actor { actor, key, handler } => {
                let key = Template::compile(&Value::String(key.clone())).map_err(|error| self.wrong(place, error))?;
                CompiledCall::Actor { actor: actor.clone(), key, handler: handler.clone() }
            }
        })
    }

    /// What a task calls, with the policies of its stage, or else those of its activity.
    fn task(&self, place: &str, call: &Call, input: &Value, retry: Option<&Retry>, timeout: Option<&Timeout>) -> Result<CompiledTask, CompileError> {
        let (own_retry, own_timeout) = match call {
            Call::Activity(name) => match self.definition.activities.get(name) {
                Some(activity) => (activity.retry.clone(), activity.timeout.clone()),
                None => (Retry::default(), Timeout::default()),
            },
            // A message to an actor is retried by its own policy where it is handled, and a run by those of its stages:
            // their answers are final.
            Call::Actor { .. } | Call::Pipeline(_) => (Retry::none(), Timeout { attempt: None, total: None }),
        };
        let limit = self.activity_limit(call)?;
        let call = self.call(&format!("{place}, `call`"), call)?;
        Ok(CompiledTask {
            breaker: self.activity_breaker(&call)?,
            call,
            input: self.template(&format!("{place}, `input`"), input)?,
            retry: retry.cloned().unwrap_or(own_retry),
            timeout: timeout.cloned().unwrap_or(own_timeout),
            retry_written: retry.is_some(),
            timeout_written: timeout.is_some(),
            limit,
            throttle_written: false,
        })
    }

    fn tasks(&self, stage: &Stage) -> Result<Vec<CompiledTask>, CompileError> {
        let place = format!("stage `{}`", stage.name);
        let (retry, timeout) = (stage.retry.as_ref(), stage.timeout.as_ref());
        match &stage.mode {
            Mode::Fork { branches, .. } => {
                if branches.is_empty() {
                    return Err(self.meaning(&stage.name, "mode", "there is nothing to call: it needs one target or branch at least".to_owned()));
                }
                branches
                    .iter()
                    .map(|branch| {
                        let place = format!("{place}, {}", branch.item);
                        self.task(&place, &branch.call, &branch.input, retry, timeout)
                    })
                    .collect()
            }
            Mode::MapReduce { map, reduce, .. } => {
                let task = |name: &str, task: &Task| self.task(&format!("{place}, `{name}`"), &task.call, &task.input, retry, timeout);
                Ok(vec![task("map", map)?, task("reduce", reduce)?])
            }
            _ => stage.call.iter().map(|call| self.task(&place, call, &stage.input, retry, timeout)).collect(),
        }
    }

    /// The throttle of a stage with a key; one without is the run's own.
    fn stage_limit(&self, stage: &Stage, throttle: &Throttle) -> Result<Option<SharedLimit>, CompileError> {
        let place = format!("stage `{}`, `throttle.key`", stage.name);
        let Some(key) = self.expression(&place, throttle.key.as_ref())? else { return Ok(None) };
        let name = format!("stage {}.{}", self.definition.name, stage.name);
        Ok(Some(SharedLimit { name, throttle: throttle.clone(), key: LimitKey::Task(key) }))
    }

    fn activity_limit(&self, call: &Call) -> Result<Option<SharedLimit>, CompileError> {
        let Call::Activity(name) = call else { return Ok(None) };
        let Some(throttle) = self.definition.activities.get(name).and_then(|activity| activity.throttle.as_ref()) else { return Ok(None) };
        let limit = SharedLimit::of_activity(name, throttle);
        limit.map(Some).map_err(|error| self.wrong(&format!("activity `{name}`, `throttle.key`"), error))
    }

    fn http_of(&self, call: &CompiledCall) -> Option<&Http> {
        let CompiledCall::Activity(name) = call else { return None };
        match &self.definition.activities.get(name)?.executor {
            Executor::Http(http) => Some(http),
            Executor::Exec(_) | Executor::Native | Executor::Worker(_) => None,
        }
    }

    fn activity_breaker(&self, call: &CompiledCall) -> Result<Option<SharedBreaker>, CompileError> {
        let CompiledCall::Activity(name) = call else { return Ok(None) };
        let Some(breaker) = self.definition.activities.get(name).and_then(|activity| activity.breaker.as_ref()) else { return Ok(None) };
        let shared = SharedBreaker::of_activity(name, breaker, self.http_of(call));
        shared.map(Some).map_err(|error| self.wrong(&format!("activity `{name}`, `http.url`"), error))
    }

    /// The breaker that a stage says, of one of its tasks. Of several targets each has its own.
    fn stage_breaker(&self, stage: &Stage, breaker: &Breaker, call: &CompiledCall, several: bool) -> Result<SharedBreaker, CompileError> {
        let mut name = format!("{}stage {}.{}", SharedBreaker::OF, self.definition.name, stage.name);
        if several {
            name = match call {
                CompiledCall::Activity(called) | CompiledCall::Pipeline(called) => format!("{name} ({called})"),
                CompiledCall::Actor { actor, handler, .. } => format!("{name} ({actor}.{handler})"),
            };
        }
        let url = any_host(self.http_of(call)).map_err(|error| self.wrong(&format!("stage `{}`, the URL that it calls", stage.name), error))?;
        Ok(SharedBreaker { name, breaker: breaker.clone(), url })
    }

    /// How many outputs a gather waits for, and what else may depend on stages that may be cancelled.
    fn quorum(&self, gather: usize, count: u32, stages: &[CompiledStage]) -> Result<(), CompileError> {
        let stage = &self.definition.stages[gather];
        let members = &stages[gather].members;
        if count == 0 || count as usize > members.len() {
            let text = format!("`count` is {count}, and it gathers {} stages: write a number from 1 to {0}", members.len());
            return Err(self.meaning(&stage.name, "wait", text));
        }
        let cancels = matches!(&stage.mode, Mode::Gather { rest: Rest::Cancel, .. });
        let depends = |other: &&CompiledStage| members.iter().find(|member| other.depends_on.contains(member) || other.members.contains(member)).copied();
        for (index, other) in stages.iter().enumerate().filter(|(index, _)| *index != gather) {
            if let Some(member) = depends(&other) {
                let (name, member) = (&self.definition.stages[index].name, &self.definition.stages[usize::from(member)].name);
                let text = format!("`{name}` depends on `{member}`, which is cancelled here when others are first: let `{name}` depend on this stage instead");
                if cancels {
                    return Err(self.meaning(&stage.name, "wait", text));
                }
            }
        }
        Ok(())
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
        let when = self.expression(&place("when"), stage.when.as_ref())?;
        let output = self.template(&place("output"), &stage.output)?;
        let mut compiled = CompiledStage {
            depends_on,
            tasks: self.tasks(stage)?,
            when_reads: self.reads_of(when.as_slice()),
            when,
            output,
            over: None,
            keep: None,
            group_by: None,
            show: None,
            until: None,
            fallback: None,
            members: Vec::new(),
            quorum: None,
            undo: None,
            feeds: Vec::new(),
            begin_reads: Reads::default(),
            output_reads_group: false,
            task_reads: Reads::default(),
        };
        if let Some(throttle) = &stage.throttle {
            let limit = self.stage_limit(stage, throttle)?;
            for task in &mut compiled.tasks {
                task.limit = limit.clone();
                task.throttle_written = true;
            }
        }
        if let Some(breaker) = &stage.breaker {
            let several = compiled.tasks.len() > 1;
            for task in &mut compiled.tasks {
                task.breaker = Some(self.stage_breaker(stage, breaker, &task.call, several)?);
            }
        }
        match &stage.mode {
            Mode::Single | Mode::Fork { .. } | Mode::Undo { .. } | Mode::WaitSignal { .. } | Mode::Sleep(SleepTime::For(_)) => {}
            Mode::MapReduce { over, .. } => compiled.over = self.expression(&place("over"), Some(over))?,
            Mode::Scatter { over, keep, .. } => {
                compiled.over = self.expression(&place("over"), Some(over))?;
                compiled.keep = self.expression(&place("where"), keep.as_ref())?;
            }
            Mode::Gather { stages, keep, group_by, wait, .. } => {
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
                if let Quorum::Count(count) = wait {
                    compiled.quorum = Some(*count);
                    compiled.depends_on.retain(|other| !compiled.members.contains(other));
                }
                compiled.keep = self.expression(&place("where"), keep.as_ref())?;
                compiled.group_by = self.expression(&place("group_by"), group_by.as_ref())?;
                let fields = [("where", &compiled.keep), ("group_by", &compiled.group_by)];
                if let Some((field, _)) = fields.into_iter().find(|(_, expression)| !self.reads_of(expression.as_slice()).named.is_empty()) {
                    let message = "in a gather, `where` and `group_by` are evaluated when an item ends: they read `item`, `input` and `run` only".to_owned();
                    return Err(self.meaning(&stage.name, field, message));
                }
            }
            Mode::Approval { show, .. } => compiled.show = self.template(&place("show"), show)?,
            Mode::Sleep(SleepTime::Until(until)) => compiled.until = self.template(&place("until"), &Value::String(until.clone()))?,
        }
        if let OnFailure::Call { call, input } = &stage.on_failure {
            compiled.fallback = Some(self.task(&place("on_failure"), call, input, None, None)?);
        }
        let outputs: Vec<Expression> = compiled.output.iter().flat_map(|template| template.expressions()).collect();
        let reads_group = |read: &super::Read| read.root() == Some("group") && read.path.get(1).is_none_or(|(name, _)| name != "key");
        compiled.output_reads_group = outputs.iter().any(|expression| expression.reads().iter().any(reads_group));
        let mut begin: Vec<Expression> = compiled.over.iter().cloned().collect();
        if compiled.members.is_empty() {
            begin.extend(compiled.keep.iter().cloned());
        }
        begin.extend(compiled.show.iter().chain(&compiled.until).flat_map(|template| template.expressions()));
        let mut task: Vec<Expression> = compiled.output.iter().flat_map(|template| template.expressions()).collect();
        for each in compiled.tasks.iter().chain(&compiled.fallback) {
            task.extend(each.input.iter().flat_map(|template| template.expressions()));
            if let CompiledCall::Actor { key, .. } = &each.call {
                task.extend(key.expressions());
            }
            if let Some(SharedLimit { key: LimitKey::Task(key), .. }) = &each.limit {
                task.push(key.clone());
            }
        }
        compiled.begin_reads = self.reads_of(&begin);
        compiled.task_reads = self.reads_of(&task);
        Ok(compiled)
    }
}
