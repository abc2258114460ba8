//! Rows that don't build on each other, on sessions of their own.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// A decoder that counts its rows, and how often it forgot what it kept of them.
struct Counted {
    decoder: Box<dyn DecoderExecutor>,
    rows: Arc<AtomicUsize>,
    forgot: Arc<AtomicUsize>,
}

impl DecoderExecutor for Counted {
    fn forward(&mut self, row: &DecoderRow, cancel: &Cancellation) -> Result<DecoderRowOutput, RuntimeError> {
        self.rows.fetch_add(1, Ordering::SeqCst);
        self.decoder.forward(row, cancel)
    }

    fn shape(&self) -> DecoderShape {
        self.decoder.shape()
    }

    fn forget(&mut self) {
        self.forgot.fetch_add(1, Ordering::SeqCst);
        self.decoder.forget();
    }
}

#[test]
fn rows_that_build_on_nothing_new_run_side_by_side_with_the_same_scores() {
    let expected = Harness::scores(true, 0);
    let harness = Harness::scores(true, 0);
    let counts = [0; 3].map(|_| Arc::new(AtomicUsize::new(0)));
    let forgot = [0; 3].map(|_| Arc::new(AtomicUsize::new(0)));
    let counted = |of: usize| -> Box<dyn DecoderExecutor> {
        let (rows, forgot) = (Arc::clone(&counts[of]), Arc::clone(&forgot[of]));
        Box::new(Counted { decoder: harness.decoder(), rows, forgot })
    };
    let [whole, first, second] = [0, 1, 2].map(counted);
    let Harness { graph: _graph, model, registry: _registry } = harness;
    let model = Arc::into_inner(model).unwrap().with_singles(Singles::new(vec![first, second]));
    let mut executor = PrefixExecutor::new(whole, Arc::new(model));
    // Two rows of a prompt, and five of candidates behind it.
    let candidates: Vec<_> = (0..20).map(|own| input(&[vec![10; 512], vec![200 + own; 64]].concat(), 512)).collect();
    let found = run(&mut executor, &candidates);
    assert_eq!(counts.each_ref().map(|rows| rows.load(Ordering::SeqCst)), [3, 2, 2]);
    assert_eq!(forgot.each_ref().map(|forgot| forgot.load(Ordering::SeqCst)), [0, 1, 1], "at the end of the batch");
    for (found, expected) in found.iter().zip(run(&mut expected.executor(), &candidates)) {
        assert_close(found[0].values(), expected[0].values());
    }
    // Every session can be used again when a batch was stopped.
    let stopped = Cancellation::new();
    stopped.cancel();
    let batch = TokenBatch::new(candidates.clone()).unwrap();
    assert!(matches!(executor.run(&batch, &stopped), Err(RuntimeError::Cancelled)));
    for (again, found) in run(&mut executor, &candidates).iter().zip(&found) {
        assert_close(again[0].values(), found[0].values());
    }
}
