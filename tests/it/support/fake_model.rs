//! A model whose passes the test holds and releases, behind the real engine and HTTP.

use std::sync::Arc;

use karat_engine::{
    repository::{
        Critic, GraphForm, GraphId, GraphModel, GraphUnit, MachineUse, Model, ModelBody, ModelStatus, WrittenRules,
    },
    schedule::{Executors, Policy, QueueLimits, Scheduler},
    telemetry::ModelMetrics,
    text::TextPipeline,
};
use karat_rules::{
    aggregate,
    domain::{Dimension, ElementType, GraphSignature, ModelName, ModelVersion, TensorSpec, catalogue::Choice},
    head,
    transform::Chain,
};
use karat_runtime::{ProviderKind, fake::FakeControl};

use super::{RAW, Repository, Server, Unserved};

/// A server of one model called `fake`, of one worker.
pub(crate) struct FakeModel {
    pub(crate) server: Server,
    pub(crate) control: FakeControl,
    graph: Arc<GraphModel>,
}

impl FakeModel {
    pub(crate) async fn serve(limits: QueueLimits) -> Self {
        Self::serve_with(limits, Unserved::new()).await
    }

    /// Serves it with other settings than the usual ones.
    pub(crate) async fn serve_with(limits: QueueLimits, unserved: Unserved) -> Self {
        Self::serve_of(limits, unserved, RAW, |_| None).await
    }

    /// Serves it as a model that also writes, by what `critic` makes of its metrics.
    pub(crate) async fn serve_writing(unserved: Unserved, critic: impl FnOnce(&ModelMetrics) -> Critic) -> Self {
        let text = RAW.replace("\"raw\"", "{ jinja = \"{% for m in messages %}{{ m['content'] }} {% endfor %}\" }");
        Self::serve_of(QueueLimits::default(), unserved, &text, |metrics| Some(critic(metrics))).await
    }

    async fn serve_of(
        limits: QueueLimits,
        unserved: Unserved,
        text: &str,
        critic: impl FnOnce(&ModelMetrics) -> Option<Critic>,
    ) -> Self {
        let control = FakeControl::new();
        let name: ModelName = "fake".parse().unwrap();
        let metrics = unserved.metrics.engine().model(&name);
        let executors = Executors { parallel: vec![control.executor()], single: None };
        let unit = GraphUnit {
            id: GraphId::unique(),
            signature: GraphSignature { inputs: Vec::new(), outputs: vec![logits()] },
            provider: ProviderKind::Cpu,
            weights: Arc::default(),
            skipped: Vec::new(),
            trial: None,
            machine: MachineUse::default(),
            form: GraphForm::Padded,
            scheduler: Scheduler::start(executors, Policy::default(), limits, metrics.clone()).unwrap(),
            images: None,
        };
        let graph = Arc::new(GraphModel {
            name: name.clone(),
            critic: critic(&metrics),
            metrics,
            pipeline: Arc::new(pipeline(text).into()),
            head: head::CATALOGUE.build(&Choice::named("scalar")).unwrap(),
            units: vec![unit],
        });
        let model = Model {
            name: name.clone(),
            version: ModelVersion::from_digest(&[0; 32]),
            hub: Vec::new(),
            description: None,
            license: None,
            aggregate: aggregate::CATALOGUE.build(&Choice::named("mean")).unwrap(),
            transforms: Chain::default(),
            written: WrittenRules { aggregate: Choice::named("mean"), transforms: Vec::new() },
            references: None,
            body: ModelBody::Graph(Arc::clone(&graph)),
        };
        unserved.engine.repository().set_status(name, ModelStatus::Ready(Arc::new(model)));
        Self { server: unserved.serve().await, control, graph }
    }

    /// How many samples wait for a pass.
    pub(crate) fn waiting(&self) -> usize {
        self.graph.units[0].scheduler.waiting().0
    }

    /// Returns once the worker is held at the closed gate.
    pub(crate) async fn held(&self) {
        let control = self.control.clone();
        tokio::task::spawn_blocking(move || control.wait_for_held(1)).await.unwrap();
    }

    /// Every sample that a pass was spent on, as the numbers of its text.
    pub(crate) fn passed(&self) -> Vec<Vec<u32>> {
        self.control.batches().into_iter().flatten().collect()
    }
}

fn logits() -> TensorSpec {
    let shape = vec![Dimension::Dynamic("batch".to_owned()), Dimension::Fixed(1)];
    TensorSpec { name: "logits".to_owned(), element: ElementType::Float32, shape }
}

fn pipeline(text: &str) -> TextPipeline {
    #[derive(serde::Deserialize)]
    struct Manifest {
        text: karat_engine::text::TextConfig,
    }
    let repository = Repository::empty();
    repository.add("fake", "", &[]);
    let manifest: Manifest = toml::from_str(text).unwrap();
    TextPipeline::load(&repository.path().join("fake"), &manifest.text).unwrap()
}
