//! A model that is ready to score.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use karat_hub::ModelId;
use karat_rules::{
    aggregate::{Aggregation, MembersShape},
    domain::{GraphSignature, ModelName, ModelVersion, TokenizedInput, catalogue::Choice},
    head::{Head, HeadShape, Probing},
    transform::Chain,
};
use karat_runtime::{
    ProviderKind, SkippedProvider,
    ort::WeightShare,
    packed::PackedSession,
    prefix::{RowCost, SharedModel},
};

use super::{MachineUse, References};
use crate::{
    generate::Generator,
    input::InputPipeline,
    manifest::CritiqueDefinition,
    schedule::{
        Scheduler,
        trial::{Company, Trial},
    },
    telemetry::ModelMetrics,
    text::TextError,
    workers::{Roster, Stage},
};

/// A model that is ready to score: graphs of its own, or a composite of other models.
#[derive(Debug)]
pub struct Model {
    /// Its name in the repository.
    pub name: ModelName,
    /// Exactly which one it is.
    pub version: ModelVersion,
    /// The models of the Hugging Face Hub that it is made of, each at a commit.
    pub hub: Vec<ModelId>,
    /// What its score means, in the manifest's words.
    pub description: Option<String>,
    /// The licence of the weights, in the manifest's words.
    pub license: Option<String>,
    /// How the members become one, unless a request says otherwise.
    pub aggregate: Box<dyn Aggregation>,
    /// What happens to the reward after that, unless a request says otherwise.
    pub transforms: Chain,
    /// The rules in the manifest's words.
    pub written: WrittenRules,
    /// How its scores compare with its reference's; none where nobody laid those beside it.
    pub references: Option<References>,
    /// What computes the members.
    pub body: ModelBody,
}

/// The rules of a manifest as it writes them, for those who ask what a score means.
#[derive(Debug, Clone)]
pub struct WrittenRules {
    /// How the members become one.
    pub aggregate: Choice,
    /// What happens to the reward after that.
    pub transforms: Vec<Choice>,
}

/// What computes the scores of a model's members.
#[derive(Debug)]
pub enum ModelBody {
    /// Graphs.
    Graph(Arc<GraphModel>),
    /// Other models, each giving one member.
    Composite(Vec<CompositeMember>),
}

/// One model of a composite.
#[derive(Debug)]
pub struct CompositeMember {
    /// The model.
    pub model: Arc<Model>,
    /// How its members become one, if not as it says itself.
    pub aggregate: Option<Box<dyn Aggregation>>,
    /// What happens to its reward, if not what it says itself.
    pub transforms: Option<Chain>,
}

/// A tokenizer, one or more graphs that take its tokens, and the head that reads their outputs.
#[derive(Debug)]
pub struct GraphModel {
    /// The model's name.
    pub name: ModelName,
    /// What is counted.
    pub metrics: ModelMetrics,
    /// From samples to what the graphs take.
    pub pipeline: Arc<InputPipeline>,
    /// From outputs to scores.
    pub head: Box<dyn Head>,
    /// The graphs, whose members are strung together in this order.
    pub units: Vec<GraphUnit>,
    /// What writes critiques, if the model does.
    pub critic: Option<Critic>,
}

/// One graph with its workers.
#[derive(Debug)]
pub struct GraphUnit {
    /// Tells it from every other graph, also from what is loaded of the same file later.
    pub id: GraphId,
    /// What the graph takes and gives.
    pub signature: GraphSignature,
    /// The provider that really runs it.
    pub provider: ProviderKind,
    /// Its weights, of which graphs of the same file have a share each.
    pub weights: Arc<WeightShare>,
    /// The providers that the manifest prefers and that could not start.
    pub skipped: Vec<SkippedProvider>,
    /// How it uses the machine.
    pub machine: MachineUse,
    /// What company its samples may have; none where nothing was tried.
    pub trial: Option<Trial>,
    /// How it takes samples.
    pub form: GraphForm,
    /// The queue and the workers.
    pub scheduler: Scheduler,
    /// The graph that takes the images, where this one takes the texts that they are compared with.
    pub images: Option<Box<GraphUnit>>,
}

impl GraphUnit {
    /// This graph and the one beside it for images, if there is one.
    pub fn sides(&self) -> impl Iterator<Item = &GraphUnit> {
        std::iter::once(self).chain(self.images.as_deref())
    }

    /// The graph that takes an input.
    pub(crate) fn side_of(&self, input: &TokenizedInput) -> &GraphUnit {
        match &self.images {
            Some(images) if input.pixels().is_some() => images,
            _ => self,
        }
    }
}

impl GraphUnit {
    /// Whether each sample is computed alone.
    #[must_use]
    pub fn runs_alone(&self) -> bool {
        self.trial.as_ref().is_some_and(|trial| trial.company == Company::Alone)
    }
}

/// How a graph takes samples.
#[derive(Debug)]
pub enum GraphForm {
    /// Whole, padded to the longest of their batch; images, all of one size.
    Padded,
    /// In rows, which share what samples begin with; what its sessions share.
    Prefixes(Arc<SharedModel>),
    /// Packed into one row of tokens.
    Packed {
        /// The first of its sessions, on which texts can be written as well.
        session: PackedSession,
        /// The place of the logits among what its sessions read, where a critique wants them.
        logits: Option<usize>,
    },
}

impl GraphForm {
    /// Whether what samples begin with in common is computed once.
    #[must_use]
    pub fn shares_prefixes(&self) -> bool {
        match self {
            Self::Padded => false,
            Self::Prefixes(shared) => shared.shares,
            Self::Packed { session, .. } => session.shape().causal,
        }
    }

    /// What rows cost, where samples are computed in rows.
    pub(super) fn row_cost(&self) -> Option<RowCost> {
        match self {
            Self::Prefixes(shared) => Some(shared.cost().clone()),
            Self::Padded | Self::Packed { .. } => None,
        }
    }
}

/// What lets a model write critiques.
#[derive(Debug)]
pub struct Critic {
    /// What its manifest says.
    pub definition: CritiqueDefinition,
    /// The tokens that end a critique.
    pub ends: Arc<[u32]>,
    /// What writes.
    pub generator: Generator,
}

/// Tells graphs apart in caches.
///
/// Invariant: no two graphs of a process share one, so that a model which is loaded again never gets its predecessor's
/// scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GraphId(u64);

impl GraphId {
    /// One that no other graph has.
    #[must_use]
    pub fn unique() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// What an aggregation gets from `graphs` graphs with one head.
pub(crate) fn members_shape(head: &HeadShape, graphs: usize, candidates: usize) -> MembersShape {
    MembersShape {
        members: head.members * graphs,
        deviations: head.deviations,
        objectives: head.objectives.clone(),
        candidates,
    }
}

impl GraphModel {
    /// Tells graph models apart in caches; `None` for one without graphs, which no manifest makes.
    pub(crate) fn id(&self) -> Option<GraphId> {
        self.units.first().map(|unit| unit.id)
    }
}

impl Model {
    /// Every graph model below this one, each once, in the manifest's order.
    #[must_use]
    pub fn leaves(&self) -> Vec<Arc<GraphModel>> {
        let mut leaves: Vec<Arc<GraphModel>> = Vec::new();
        self.visit_leaves(&mut |leaf| {
            if !leaves.iter().any(|known| Arc::ptr_eq(known, leaf)) {
                leaves.push(Arc::clone(leaf));
            }
        });
        leaves
    }

    fn visit_leaves(&self, visit: &mut impl FnMut(&Arc<GraphModel>)) {
        match &self.body {
            ModelBody::Graph(graph) => visit(graph),
            ModelBody::Composite(members) => members.iter().for_each(|member| member.model.visit_leaves(visit)),
        }
    }

    /// Its share of the memory that weights take; none of a composite, whose members have theirs.
    #[must_use]
    pub fn weight_bytes(&self) -> Option<u64> {
        let ModelBody::Graph(graph) = &self.body else { return None };
        Some(graph.units.iter().flat_map(GraphUnit::sides).map(|unit| unit.weights.share()).sum())
    }

    /// What an aggregation gets, when `candidates` samples are aggregated together.
    #[must_use]
    pub(crate) fn members_shape(&self, candidates: usize) -> MembersShape {
        match &self.body {
            ModelBody::Graph(graph) => {
                let graphs_a_score = graph.head.probing().map_or(1, Probing::graphs);
                members_shape(&graph.head.shape(), graph.units.len() / graphs_a_score, candidates)
            }
            ModelBody::Composite(members) => MembersShape { candidates, ..MembersShape::of(members.len()) },
        }
    }

    /// Whether reports tell several objectives apart: named ones of a head, or the models of a composite.
    #[must_use]
    pub fn has_objectives(&self) -> bool {
        match &self.body {
            ModelBody::Graph(graph) => graph.head.shape().objectives.is_some(),
            ModelBody::Composite(members) => members.len() > 1,
        }
    }

    /// Writes a list of steps as one response; `None` when the model reads no steps.
    ///
    /// # Errors
    /// When a step holds what ends one, and would be taken for several.
    pub fn join_steps(&self, steps: &[String]) -> Result<Option<String>, TextError> {
        match &self.body {
            ModelBody::Graph(graph) => graph.pipeline.join_steps(steps),
            ModelBody::Composite(_) => Ok(None),
        }
    }

    /// Whether the model scores pairs of responses, each sample the preference for its first one.
    #[must_use]
    pub fn judges_pairs(&self) -> bool {
        match &self.body {
            ModelBody::Graph(graph) => graph.head.shape().pairs,
            ModelBody::Composite(_) => false,
        }
    }

    /// Whether the model gives vectors that tell responses apart.
    #[must_use]
    pub(crate) fn gives_embeddings(&self) -> bool {
        matches!(&self.body, ModelBody::Graph(graph) if graph.head.gives_embedding())
    }

    /// Whether the model gives step scores.
    #[must_use]
    pub fn gives_steps(&self) -> bool {
        match &self.body {
            ModelBody::Graph(graph) => graph.head.gives_steps(),
            ModelBody::Composite(_) => false,
        }
    }

    /// Whether every member's score is a probability, from 0 to 1, before the model's own aggregation and transforms.
    pub(crate) fn scores_probabilities(&self) -> bool {
        match &self.body {
            ModelBody::Graph(graph) => graph.head.gives_probabilities(),
            ModelBody::Composite(members) => members.iter().all(|member| {
                let aggregate = member.aggregate.as_deref().unwrap_or(&*member.model.aggregate);
                let transforms = member.transforms.as_ref().unwrap_or(&member.model.transforms);
                transforms.gives_probabilities(aggregate.gives_probabilities(member.model.scores_probabilities()))
            }),
        }
    }

    /// Why graphs of this model don't keep a sample's score in company, although their form promises to; empty where all
    /// do.
    #[must_use]
    pub fn broken_promises(&self) -> Vec<String> {
        let leaves = self.leaves();
        let trials = leaves.iter().flat_map(|leaf| &leaf.units).flat_map(GraphUnit::sides);
        let trials = trials.filter_map(|unit| unit.trial.as_ref());
        trials.filter(|trial| trial.broken).filter_map(|trial| trial.reason.clone()).collect()
    }

    /// The most tokens that a sample may have; for a composite, the least of its models.
    #[must_use]
    pub fn max_tokens(&self) -> usize {
        self.leaves().iter().map(|leaf| leaf.pipeline.max_tokens()).min().unwrap_or(0)
    }

    /// Lets a roster end the model's threads with all others.
    pub(super) fn enlist(&self, roster: &Roster) {
        // The models of a composite were enlisted on their own.
        if let ModelBody::Graph(graph) = &self.body {
            graph
                .units
                .iter()
                .flat_map(GraphUnit::sides)
                .for_each(|unit| unit.scheduler.enlist(roster, Stage::Serving));
            graph.critic.iter().for_each(|critic| critic.generator.enlist(roster, Stage::Serving));
        }
    }
}
