//! One arena for what passes on the processor compute with.
//!
//! By itself each session keeps an arena, as large as its largest pass was. Of many sessions few run at once, so that one
//! arena for all of them holds far less. It grows by what is asked for, so that it can give that back, and does so when
//! nothing is computed any more: otherwise the longest text that ever came would be paid for as long as the process runs.

use std::ptr;

use ::ort::{
    AsPointer,
    environment::Environment,
    memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType},
    session::{RunOptions, Session},
    value::TensorRef,
};
use karat_onnx::{GraphProto, ModelProto, NodeProto, ValueInfoProto, tensor_proto::DataType};
use prost::Message;

/// Grow by as much as is asked for, not by powers of two.
const SAME_AS_REQUESTED: usize = 1;

/// Options of a pass by their names: afterwards the arena gives back what nobody uses.
pub(super) const SHRINKING: &[(&str, &str)] = &[("memory.enable_memory_arena_shrinkage", "cpu:0")];

/// Gives the environment an arena, which sessions take that are told to.
#[expect(unsafe_code, reason = "ort has no call for it")]
pub(super) fn share(environment: &Environment) -> Result<(), ::ort::Error> {
    let memory = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Arena, MemoryType::Default)?;
    let api = ::ort::api();
    let keys = [c"arena_extend_strategy".as_ptr()];
    let values = [SAME_AS_REQUESTED];
    let mut settings = ptr::null_mut();
    // SAFETY: keys and values are as many as is said and outlive the call, which makes the settings or says why not.
    unsafe {
        let made = (api.CreateArenaCfgV2)(keys.as_ptr(), values.as_ptr(), keys.len(), &raw mut settings);
        ::ort::Error::result_from_status(made)?;
    }
    // SAFETY: environment, memory and settings live; no session has been started in the environment yet, and the settings
    // are copied.
    unsafe {
        let registered = (api.CreateAndRegisterAllocator)(environment.ptr().cast_mut(), memory.ptr(), settings);
        (api.ReleaseArenaCfg)(settings);
        ::ort::Error::result_from_status(registered)
    }
}

/// Gives back what of the arena nobody uses; passes that run meanwhile keep what they have. Only the end of a pass does so:
/// here one that computes nothing.
pub(super) fn shrink(environment: &Environment) -> Result<(), ::ort::Error> {
    let number = |name| ValueInfoProto::tensor(name, DataType::Float, &["1"]);
    let model = ModelProto::of(GraphProto {
        name: Some("nothing".to_owned()),
        node: vec![NodeProto::new("Identity", &["in"], "out", Vec::new())],
        input: vec![number("in")],
        output: vec![number("out")],
        ..GraphProto::default()
    });
    let mut session = Session::builder(environment)?
        .with_env_allocators()?
        .with_intra_threads(1)?
        .commit_from_memory(&model.encode_to_vec())?;
    let mut options = RunOptions::new()?;
    for (key, value) in SHRINKING {
        options.set(key, value)?;
    }
    let nothing = TensorRef::from_array_view(([1_usize], &[0.0_f32][..]))?;
    session.run_with_options(::ort::inputs![nothing], &options)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroUsize, sync::Arc};

    use karat_rules::domain::{Cut, TokenizedInput};

    use super::{
        super::{
            GraphFile, Sessions,
            testing::{GraphWriter, ids_to_scores, library},
        },
        *,
    };
    use crate::{
        Cancellation, Provider, TokenBatch,
        testing::{resident, run_alone},
    };

    /// Set for the process that [`child`] runs in.
    const CHILD: &str = "KARAT_TEST_ARENA";
    const MIB: usize = 1 << 20;

    /// Runs alone in a process of its own, whose memory nobody else changes.
    #[test]
    #[ignore = "only meant to be run by the test below"]
    fn child() {
        if std::env::var_os(CHILD).is_none() {
            return;
        }
        // Each token times each other one: 16 MiB of 2,000.
        let (_folder, path) = GraphWriter::default()
            .input("input_ids", DataType::Int64, &["batch", "tokens"])
            .cast("input_ids", "ids", DataType::Float)
            .node("Transpose", &["ids"], "column", &[])
            .node("Mul", &["column", "ids"], "table", &[])
            .integers("axes", &[0, 1])
            .node("ReduceSum", &["table", "axes"], "scores", &[("keepdims", 1)])
            .output("scores", DataType::Float, &["1", "1"])
            .write();
        let graph = library().open(&GraphFile { path: &path, providers: &[Provider::Cpu] }, Sessions::SEVERAL).unwrap();
        let binding = ids_to_scores();
        let mut executor = graph.executor(&binding, NonZeroUsize::MIN).unwrap();
        let mut run = |tokens: usize| {
            let input = TokenizedInput::new(vec![1; tokens], vec![0; tokens], 0..tokens, Cut::default()).unwrap();
            executor.run(&TokenBatch::single(Arc::new(input)), &Cancellation::new()).unwrap()[0][0].values().to_vec()
        };
        let score = run(2000);
        let (before, library) = (resident(), library());
        library.give_back_at_rest();
        assert!(resident() + 4 * MIB > before, "a pass has just run");
        library.give_back_at_rest();
        let after = resident();
        assert!(after + 12 * MIB < before, "{before} bytes became {after}");
        // Nothing ran since.
        library.give_back_at_rest();
        assert_eq!(run(2000), score);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_a_large_pass_computed_with_is_given_back_at_rest() {
        run_alone("ort::arena::tests::child", CHILD, "1", &[]);
    }
}
