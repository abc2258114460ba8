//! What a request costs beside its forward pass: `cargo bench --bench request`, after `make setup`.
//!
//! `route` is the whole way of 32 samples that are known already, from the bytes of the body to the bytes of the reply.
//! `parse` is its beginning, as far as the model's name is looked up; `engine` is its middle. What `route` takes beyond
//! both is the reply's serialisation and the middleware. What a run adds is measured by `cargo bench --bench runs`.

#![allow(missing_docs, reason = "divan's attribute makes items that can't be documented")]
#![allow(clippy::unwrap_used, reason = "a benchmark's input is its own")]

mod served;

use divan::{Bencher, counter::ItemsCount};
use http::StatusCode;
use karat_engine::engine::ScoreRequest;
use karat_rules::domain::Sample;

use served::{MODEL, SAMPLES, Served, body, name, pipeline, texts};

fn main() {
    divan::main();
}

#[divan::bench]
fn route(bencher: Bencher<'_, '_>) {
    let (served, body) = (Served::new(), body(MODEL));
    assert_eq!(served.post(body.clone()).0, StatusCode::OK);
    bencher.counter(ItemsCount::new(SAMPLES)).bench_local(|| served.post(body.clone()));
}

#[divan::bench]
fn parse(bencher: Bencher<'_, '_>) {
    let (served, body) = (Served::new(), body("nobody"));
    assert_eq!(served.post(body.clone()).0, StatusCode::NOT_FOUND);
    bencher.counter(ItemsCount::new(SAMPLES)).bench_local(|| served.post(body.clone()));
}

#[divan::bench]
fn engine(bencher: Bencher<'_, '_>) {
    let served = Served::new();
    let request = || {
        let samples = texts().into_iter().map(|(prompt, response)| Sample::from_prompt(prompt, response).unwrap());
        ScoreRequest::new(name(), samples.collect()).unwrap()
    };
    let score = |request| served.runtime.block_on(served.engine.score(request)).unwrap();
    assert_eq!(score(request()).results.len(), SAMPLES);
    bencher.counter(ItemsCount::new(SAMPLES)).with_inputs(request).bench_local_values(score);
}

#[divan::bench]
fn tokenise(bencher: Bencher<'_, '_>) {
    let pipeline = pipeline();
    let samples: Vec<Sample> =
        texts().into_iter().map(|(prompt, response)| Sample::from_prompt(prompt, response).unwrap()).collect();
    let tokens = || samples.iter().map(|sample| pipeline.tokenize(sample, None).unwrap().len()).sum::<usize>();
    bencher.counter(ItemsCount::new(tokens())).bench_local(tokens);
}
