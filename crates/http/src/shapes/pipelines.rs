//! Stored pipelines.

use std::collections::BTreeMap;

use serde_json::Value;
use utoipa::ToSchema;

/// A pipeline, as lists show it.
#[derive(ToSchema)]
pub(crate) struct PipelineSummary {
    /// Its name.
    name: String,
    /// Its current version.
    version: String,
    /// How many stages it has.
    stages: u64,
    /// Where it is from.
    source: PipelineSource,
    /// When it was stored.
    #[schema(required, format = DateTime)]
    at: Option<String>,
}

/// Where a pipeline is from.
#[derive(ToSchema)]
pub(crate) enum PipelineSource {
    /// The file beside the server.
    #[schema(rename = "app.yaml")]
    App,
    /// It was stored.
    #[schema(rename = "stored")]
    Stored,
}

/// A pipeline with its versions, or one version of it, whole.
#[derive(ToSchema)]
#[serde(untagged)]
pub(crate) enum ShownPipeline {
    /// With its versions.
    Pipeline(Pipeline),
    /// One of them, where a version is asked for.
    Version(PipelineDefinition),
}

/// A pipeline with its versions.
#[derive(ToSchema)]
pub(crate) struct Pipeline {
    /// Its name.
    name: String,
    /// Where it is from.
    source: PipelineSource,
    /// Its current version.
    version: String,
    /// For people.
    description: String,
    /// The names of its stages.
    stages: Vec<String>,
    /// Those that are stored, the newest first.
    versions: Vec<PipelineVersion>,
    /// By version: runs that have not ended.
    open: BTreeMap<String, u64>,
    /// The next five fires of its schedule, as the clock of its zone shows them.
    fires: Vec<String>,
}

/// A version of a stored pipeline.
#[derive(ToSchema)]
pub(crate) struct PipelineVersion {
    /// The hash of its content.
    version: String,
    /// When it was stored.
    #[schema(format = DateTime)]
    at: String,
    /// Who stored it.
    by: String,
    /// Its runs that have not ended.
    open: u64,
}

/// A version of a stored pipeline, whole.
#[derive(ToSchema)]
pub(crate) struct PipelineDefinition {
    /// Its name.
    name: String,
    /// The hash of its content.
    version: String,
    /// When it was stored.
    #[schema(format = DateTime)]
    at: String,
    /// Who stored it.
    by: String,
    /// What it says, as `application/vnd.selvedge.definition+json`.
    definition: Value,
}

/// A pipeline that was stored, and what changed by that.
#[derive(ToSchema)]
pub(crate) struct StoredPipeline {
    /// Its name.
    name: String,
    /// The hash of its content.
    version: String,
    /// The version in whose place it stands.
    #[schema(required)]
    before: Option<String>,
    /// Whether something changed.
    status: StoredStatus,
    /// What, in words.
    changes: Vec<String>,
    /// The next five fires of its schedule, as the clock of its zone shows them.
    fires: Vec<String>,
}

/// What storing a pipeline changed.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(crate) enum StoredStatus {
    /// There was none of this name.
    New,
    /// It is what was there.
    Unchanged,
    /// It is another version.
    Changed,
}

/// What differs between two versions of a pipeline.
#[derive(ToSchema)]
pub(crate) struct PipelineDiff {
    /// Its name.
    name: String,
    /// The one.
    before: String,
    /// The other one.
    after: String,
    /// What differs, in words.
    changes: Vec<String>,
}

/// A run that was started.
#[derive(ToSchema)]
pub(crate) struct StartedRun {
    /// `run_…`.
    run: String,
    /// The version that it is of.
    version: String,
}
