//! A broken model is listed as failed, with a reason that says what to write instead, and the others serve.

use karat_engine::repository::{LoadError, ModelStatus};
use serde_json::json;

use crate::support::{Child, RAW, Repository, Server, Unserved, graph_manifest, karat};

/// A model that can't be loaded.
struct Broken {
    name: &'static str,
    manifest: String,
    graphs: &'static [&'static str],
    /// What the reason must hold: the file, the key, what was found, what to write.
    needles: &'static [&'static str],
}

fn broken(
    name: &'static str,
    manifest: impl Into<String>,
    graphs: &'static [&'static str],
    needles: &'static [&'static str],
) -> Broken {
    Broken { name, manifest: manifest.into(), graphs, needles }
}

/// A graph that is there, under another manifest.
fn with_graph(manifest: &str) -> String {
    format!("[graph]\nfile = \"sum.onnx\"\n{manifest}")
}

fn broken_graphs() -> Vec<Broken> {
    let sum = &["sum"];
    let plain = |graph: &str| graph_manifest("", graph);
    let output = |graph: &str| plain(graph).replace("[text]", "output = \"scores\"\n[text]");
    vec![
        broken("no-file", plain("absent"), &[], &["model.toml", "graph.file", "absent.onnx", "relative to"]),
        broken("no-output", output("sum"), sum, &["graph.output", "no output \"scores\"", "write one of \"logits\""]),
        broken(
            "two-outputs",
            plain("two_outputs"),
            &["two_outputs"],
            &["graph.output", "no output \"logits\"", "\"quality\", \"margin\""],
        ),
        broken(
            "fixed-shape",
            plain("fixed_shape"),
            &["fixed_shape"],
            &["graph.inputs.input_ids", "int64[1, 16]", "fixed shape", "both axes dynamic"],
        ),
        broken("float-ids", plain("float_ids"), &["float_ids"], &["graph.inputs.input_ids", "float32", "as int64"]),
        broken("tokens", plain("tokens"), &["tokens"], &["head", "head = { token", "[batch, 1]"]),
        broken("members", plain("members"), &["members"], &["head", "[batch, 3]", "multi = { members = 3 }"]),
        broken(
            "four-members",
            graph_manifest("head = { multi = { members = 4 } }", "members"),
            &["members"],
            &["head", "members = 3"],
        ),
        broken(
            "no-input",
            plain("sum").replace("[text]", "inputs = { input_ids = \"tokens\" }\n[text]"),
            sum,
            &["graph.inputs.input_ids", "no input \"tokens\"", "write one of \"input_ids\""],
        ),
        broken(
            "no-such-provider",
            graph_manifest("providers = [\"tpu\"]", "sum"),
            sum,
            &["model.toml", "providers", "tpu", "`cpu`, `cuda`, `tensorrt`"],
        ),
        broken("no-provider", graph_manifest("providers = []", "sum"), sum, &["providers", "[\"cpu\"]"]),
    ]
}

fn broken_manifests() -> Vec<Broken> {
    let sum = &["sum"];
    vec![
        broken("no-toml", "head = ", sum, &["model.toml", "line 1"]),
        broken(
            "unknown-key",
            graph_manifest("agregate = \"mean\"", "sum"),
            sum,
            &["model.toml", "unknown field `agregate`", "`aggregate`"],
        ),
        broken(
            "unknown-head",
            graph_manifest("head = \"vector\"", "sum"),
            sum,
            &["head", "\"vector\"", "scalar, multi"],
        ),
        broken(
            "unknown-rule",
            graph_manifest("aggregate = \"middle\"", "sum"),
            sum,
            &["aggregate", "\"middle\"", "mean, worst_case"],
        ),
        broken(
            "bad-lambda",
            graph_manifest("aggregate = { uncertainty_weighted = { lambda = -1 } }", "sum"),
            sum,
            &["aggregate", "at least 0, found -1"],
        ),
        broken("delta", graph_manifest("transforms = [\"delta\"]", "sum"), sum, &["transforms", "process reward"]),
        broken("no-text", with_graph(""), sum, &["text", "missing", "render and max_tokens"]),
        broken("no-graph", RAW, &[], &["graph", "missing", "[[ensemble]]"]),
        broken("no-limit", with_graph("[text]\nrender = \"raw\""), sum, &["model.toml", "missing field `max_tokens`"]),
        broken(
            "no-tokenizer",
            with_graph(&RAW.replace("[text]", "[text]\ntokenizer = \"absent.json\"")),
            sum,
            &["absent.json"],
        ),
        broken("no-token", with_graph(&RAW.replace("[PAD]", "<pad>")), sum, &["text.pad_token", "<pad>", "vocabulary"]),
        broken(
            "no-template",
            with_graph("[text]\nmax_tokens = 8\nrender = \"chat_template\""),
            sum,
            &["text.render", "chat_template"],
        ),
    ]
}

fn broken_composites() -> Vec<Broken> {
    let of = |members: &[&str]| {
        members.iter().map(|member| format!("[[ensemble]]\nmodel = \"{member}\"\n")).collect::<String>()
    };
    let absent_needles = &["ensemble", "no model absent", "sum"];
    vec![
        broken("of-absent", of(&["sum", "absent"]), &[], absent_needles),
        broken("of-broken", of(&["sum", "no-toml"]), &[], &["ensemble", "no-toml failed to load"]),
        broken(
            "circle-a",
            of(&["sum", "circle-b"]),
            &[],
            &["ensemble", "part of itself", "circle-b", "break the circle"],
        ),
        broken("circle-b", of(&["circle-a"]), &[], &["ensemble", "part of itself", "circle-a"]),
        broken("selfish", of(&["selfish"]), &[], &["ensemble", "part of itself"]),
        broken(
            "both",
            of(&["sum"]) + &graph_manifest("", "sum"),
            &["sum"],
            &["ensemble", "no graph or text of its own"],
        ),
        broken(
            "member-rule",
            of(&["sum"]) + "aggregate = \"middle\"\n",
            &[],
            &["ensemble", "sum", "\"middle\"", "mean, worst_case"],
        ),
    ]
}

#[tokio::test]
async fn every_broken_model_says_what_to_mend_and_the_others_serve() {
    let repository = Repository::with_sum();
    let broken: Vec<Broken> =
        [broken_graphs(), broken_manifests(), broken_composites()].into_iter().flatten().collect();
    for model in &broken {
        repository.add(model.name, &model.manifest, model.graphs);
    }
    repository.add("no-onnx", &graph_manifest("", "sum"), &[]);
    repository.write("no-onnx", "sum.onnx", "version https://example.org/not-a-graph");
    repository.add("bad-tokenizer", &graph_manifest("", "sum"), &["sum"]);
    repository.write("bad-tokenizer", "tokenizer.json", "{\"model\": 3}");
    let server = Server::of(&repository).await;

    let listed = server.get("/v1/models").await;
    let card = |name: &str| {
        let cards = listed.body["data"].as_array().unwrap();
        cards.iter().find(|card| card["id"] == name).unwrap_or_else(|| panic!("{name} isn't listed"))
    };
    let mut wrong = Vec::new();
    let written: [(&str, &[&str]); 2] =
        [("no-onnx", &["sum.onnx", "no ONNX file"]), ("bad-tokenizer", &["tokenizer.json"])];
    for (name, needles) in broken.iter().map(|model| (model.name, model.needles)).chain(written) {
        let card = card(name);
        let reason = card["reason"].as_str().unwrap_or_default();
        for needle in needles.iter().chain(&[name]) {
            if card["status"] != "failed" || !reason.contains(needle) {
                wrong.push(format!("{name}: {needle:?} is not in {card}"));
            }
        }
        let reply = server.post(&json!({"model": name, "inputs": [{"text": "10"}]})).await;
        wrong.extend(reply.is_problem(503, "model-unavailable", &format!("GET /v1/models/{name} tells why")).err());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    assert_eq!(card("sum")["status"], "ready");
    assert_eq!(server.rewards("sum", &["10 11"]).await.len(), 1);
    let ready = server.get("/health/ready").await;
    assert_eq!((ready.status, &ready.body["status"]), (200, &json!("ready")), "{}", ready.text);
    assert_eq!(ready.body["models"]["no-onnx"], "failed");
}

#[tokio::test]
async fn a_server_is_ready_when_all_its_models_are() {
    let repository = Repository::with_sum();
    let unserved = Unserved::new();
    let engine = std::sync::Arc::clone(&unserved.engine);
    let server = unserved.serve().await;
    let ready = async || {
        let reply = server.get("/health/ready").await;
        (reply.status, reply.body["status"].as_str().unwrap().to_owned())
    };
    assert_eq!(server.get("/health/live").await.status, 200);
    assert_eq!(ready().await, (503, "loading".to_owned()), "no model was found yet");

    for name in ["sum", "slow"] {
        engine.repository().set_status(name.parse().unwrap(), ModelStatus::Loading);
    }
    assert_eq!(ready().await, (503, "loading".to_owned()));
    let early = server.post(&json!({"model": "sum", "inputs": [{"text": "10"}]})).await;
    early.assert_problem(503, "model-unavailable", "still loading");
    assert!(early.header("retry-after").parse::<u32>().unwrap() >= 1);

    let loaded = Unserved { engine: std::sync::Arc::clone(&engine), ..Unserved::new() };
    loaded.load(&repository).await.unwrap();
    assert_eq!(server.rewards("sum", &["10"]).await.len(), 1);
    assert_eq!(ready().await, (200, "ready".to_owned()), "what is loaded after the start keeps nobody waiting");
    engine.repository().set_status("slow".parse().unwrap(), ModelStatus::Failed("broken".to_owned()));
    assert_eq!(ready().await, (200, "ready".to_owned()));
    engine.repository().set_status("sum".parse().unwrap(), ModelStatus::Failed("broken".to_owned()));
    assert_eq!(ready().await, (503, "failed".to_owned()));
}

#[tokio::test]
async fn a_model_whose_engines_are_built_holds_nobody_up() {
    let repository = Repository::with_sum();
    let unserved = Unserved::new();
    let engine = std::sync::Arc::clone(&unserved.engine);
    unserved.load(&repository).await.unwrap();
    engine.repository().set_status("slow".parse().unwrap(), ModelStatus::Building(std::time::Instant::now()));
    let server = unserved.serve().await;
    let ready = server.get("/health/ready").await;
    assert_eq!((ready.status, &ready.body["models"]["slow"]), (200, &json!("building")));
    let card = server.get("/v1/models/slow").await.body;
    assert_eq!(card["status"], "building");
    assert!(card["building_seconds"].as_u64().is_some(), "{card}");
    let early = server.post(&json!({"model": "slow", "inputs": [{"text": "10"}]})).await;
    early.assert_problem(503, "model-unavailable", "building the engines");
    assert!(early.header("retry-after").parse::<u32>().unwrap() >= 1);

    engine.repository().set_status("sum".parse().unwrap(), ModelStatus::Failed("broken".to_owned()));
    let ready = server.get("/health/ready").await;
    assert_eq!((ready.status, &ready.body["status"]), (503, &json!("loading")), "nothing serves yet");
}

#[tokio::test]
async fn models_that_tensorrt_builds_come_last_with_those_that_need_them() {
    // Empty files stand in for the libraries: they are found, and the provider can't start from them.
    let libraries = tempfile::tempdir().unwrap();
    for name in [
        "libcuda.so.1",
        "libcudart.so.13",
        "libcublasLt.so.13",
        "libcublas.so.13",
        "libcudnn.so.9",
        "libnvinfer.so.10",
        "libnvonnxparser.so.10",
    ] {
        std::fs::write(libraries.path().join(name), "").unwrap();
    }
    let repository = Repository::with_sum();
    repository.add("built", &graph_manifest("providers = [\"tensorrt\", \"cpu\"]", "sum"), &["sum"]);
    repository.add("composite", "ensemble = [{ model = \"built\" }]", &[]);
    let models = repository.path().to_str().unwrap();
    let mut command = karat(&["serve", "--models", models, "--listen", "127.0.0.1:0"]);
    command.env("LD_LIBRARY_PATH", libraries.path());
    let child = Child::start(command).await;
    child.ready().await;
    // Ready may come before they are built; they follow.
    let body = |model: &str| json!({"model": model, "inputs": [{"text": "10"}]});
    for model in ["built", "composite"] {
        until_ready(&child, &body(model)).await;
    }
    child.signal("TERM");
    let log = child.end().await.stderr;
    for model in ["built", "composite"] {
        let waits = format!("\"model\":\"{model}\"");
        assert!(
            log.lines().any(|line| line.contains("engines that TensorRT builds") && line.contains(&waits)),
            "{log}"
        );
    }
    let place = |needle: &str| log.find(needle).unwrap_or_else(|| panic!("{needle} is not in {log}"));
    let sum = log.lines().find(|line| line.contains("model ready") && line.contains("\"sum\"")).unwrap();
    assert!(place(sum) < place("provider skipped"), "others are loaded first: {log}");
}

async fn until_ready(child: &Child, body: &serde_json::Value) {
    while child.post(body).await.status == 503 {
        tokio::task::yield_now().await;
    }
    assert_eq!(child.post(body).await.status, 200);
}

#[tokio::test]
async fn a_provider_that_can_not_start_gives_way_only_where_the_manifest_lets_it() {
    let repository = Repository::with_sum();
    let providers = [
        ("gpu-only", "[\"cuda\"]"),
        ("trt-only", "[{ tensorrt = { fp16 = true } }]"),
        ("gpu-or-cpu", "[{ tensorrt = {} }, { cuda = { device = 0 } }, \"cpu\"]"),
    ];
    for (name, list) in providers {
        repository.add(name, &graph_manifest(&format!("providers = {list}"), "sum"), &["sum"]);
    }
    let server = Server::of(&repository).await;
    let show = async |name: &str| server.get(&format!("/v1/models/{name}")).await.body;
    if show("gpu-only").await["status"] == "ready" {
        // With a GPU there is nothing to give way to.
        assert_eq!(show("gpu-only").await["graphs"][0]["provider"], "cuda");
        return;
    }
    for (name, provider) in [("gpu-only", "cuda"), ("trt-only", "tensorrt")] {
        let card = show(name).await;
        let reason = card["reason"].as_str().unwrap();
        assert_eq!(card["status"], "failed");
        assert!(reason.contains(&format!("provider \"{provider}\" can't start")), "{reason}");
        assert!(reason.contains("the library lib") && reason.contains("missing"), "{reason}");
        assert!(reason.contains("install ") && reason.contains("model.toml"), "{reason}");
    }
    let card = show("gpu-or-cpu").await;
    let graph = &card["graphs"][0];
    assert_eq!((&card["status"], &graph["provider"]), (&json!("ready"), &json!("cpu")), "{card}");
    let skipped = graph["skipped_providers"].as_array().unwrap();
    let names: Vec<&str> = skipped.iter().map(|skipped| skipped["provider"].as_str().unwrap()).collect();
    assert_eq!(names, ["tensorrt", "cuda"]);
    for skipped in skipped {
        assert!(skipped["reason"].as_str().unwrap().contains("missing"), "{skipped}");
    }
    assert_eq!(server.rewards("gpu-or-cpu", &["10 11"]).await, server.rewards("sum", &["10 11"]).await);
    assert!(show("sum").await["graphs"][0].get("skipped_providers").is_none());
}

#[tokio::test]
async fn a_repository_without_models_is_an_error() {
    let empty = Repository::empty();
    assert!(matches!(Unserved::new().load(&empty).await, Err(LoadError::Empty { .. })));
    empty.write("draft", "notes.txt", "no manifest yet");
    let folder = empty.path().to_str().unwrap().to_owned();
    let absent = format!("{folder}/absent");
    for (models, needle) in [(&folder, "holds no model; put a folder with a model.toml"), (&absent, "can't be read")] {
        let output = karat(&["serve", "--models", models, "--listen", "127.0.0.1:0"]).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(needle) && stderr.contains(models.as_str()), "{stderr}");
    }
}

#[tokio::test]
async fn strict_makes_a_broken_model_fatal() {
    let repository = Repository::with_sum();
    repository.add("broken", "head = ", &[]);
    let models = repository.path().to_str().unwrap();
    for environment in [None, Some("true"), Some("1")] {
        let mut command = karat(&["serve", "--models", models, "--listen", "127.0.0.1:0"]);
        match environment {
            None => command.arg("--strict"),
            Some(value) => command.env("KARAT_STRICT", value),
        };
        let output = command.output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("--strict") && stderr.contains("broken/model.toml"), "{stderr}");
    }

    let lenient = Child::serve(&repository, &[]).await;
    lenient.ready().await;
    let body = json!({"model": "sum", "inputs": [{"text": "10"}]});
    assert_eq!(lenient.post(&body).await.status, 200);
}
