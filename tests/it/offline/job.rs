//! `karat score --job`: rows that a server works on when there is nothing else to do.

use super::*;

#[tokio::test]
async fn a_job_gives_the_scores_of_requests_and_goes_on_where_a_run_was_killed() {
    const ROWS: u32 = 4000;
    let repository = Repository::with_sum();
    let (server, files) = (Server::of(&repository).await, Files::new());
    let (input, output) = (files.write("samples.jsonl", &samples(ROWS)), files.path("scores.jsonl"));
    let (url, note) = (server.url(""), files.path("scores.jsonl.job"));
    let flags = ["--server", &url, "--job", "--keep", "id", "--json"];
    let mut run = score(&input, &output, &flags).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let written = || fs::read(&output).unwrap_or_default().iter().filter(|byte| **byte == b'\n').count();
    until("some rows are scored", || written() >= 4).await;
    run.kill().unwrap();
    run.wait().unwrap();
    let before = written();
    assert!(note.is_file() && before < ROWS as usize, "the run was over before it was killed");

    // What was handed over is another input's now.
    let longer = files.write("longer.jsonl", &samples(ROWS + 1));
    let refused = finish(score(&longer, &output, &flags)).await;
    assert!(!refused.status.success() && stderr(&refused).contains("another input"), "{}", stderr(&refused));

    let done = finish(score(&input, &output, &flags)).await;
    assert!(done.status.success(), "{}", stderr(&done));
    let summary: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!((&summary["bad"], summary["earlier"].as_u64()), (&json!(0), Some(before as u64)));
    assert_every_row_once(&output, ROWS);
    let asked = |name: &str| server.metric(&format!("karat_cache_{name}_total{{model=\"sum\"}}"));
    assert_eq!(asked("hits") + asked("misses"), u64::from(ROWS), "the rows were handed over once");
    assert!(!note.exists() && server.get("/v1/jobs").await.body["jobs"].as_array().unwrap().is_empty());

    let requested = files.path("requested.jsonl");
    let done = finish(score(&input, &requested, &["--server", &url, "--keep", "id"])).await;
    assert!(done.status.success(), "{}", stderr(&done));
    assert_eq!(lines(&output), lines(&requested));
}

#[tokio::test]
async fn rows_are_handed_over_once_where_a_run_was_killed_before_it_heard_the_answer() {
    const ROWS: u32 = 4000;
    let repository = Repository::with_sum();
    let (server, files) = (Server::of(&repository).await, Files::new());
    let (input, output) = (files.write("samples.jsonl", &samples(ROWS)), files.path("scores.jsonl"));
    let (url, note) = (server.url(""), files.path("scores.jsonl.job"));
    let run = || score(&input, &output, &["--server", &url, "--job"]);
    let handed_over = || serde_json::from_slice::<Value>(&fs::read(&note).unwrap_or_default()).unwrap_or_default();
    let mut killed = run().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until("the rows are handed over", || handed_over()["job"]["id"].is_string()).await;
    killed.kill().unwrap();
    killed.wait().unwrap();
    // What it would have left a moment before.
    let Value::Object(mut before) = handed_over() else { panic!("the run was over before it was killed") };
    let job = before.insert("job".to_owned(), Value::Null).unwrap();
    fs::write(&note, Value::Object(before).to_string()).unwrap();
    fs::write(&output, "").unwrap();

    let again = run().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until("the rows are handed over again", || handed_over()["job"] == job || !note.exists()).await;
    let jobs = server.get("/v1/jobs").await.body["jobs"].as_array().unwrap().clone();
    let done = tokio::task::spawn_blocking(|| again.wait_with_output()).await.unwrap().unwrap();
    assert!(done.status.success() && jobs.len() <= 1, "{jobs:?}");
    assert_every_row_once(&output, ROWS);
    let asked = |name: &str| server.metric(&format!("karat_cache_{name}_total{{model=\"sum\"}}"));
    assert_eq!(asked("hits") + asked("misses"), u64::from(ROWS), "they were scored once");

    // Other rows under the same name are told.
    fs::write(&note, json!({"server": url, "submission": "mine", "job": null}).to_string()).unwrap();
    let mine = server.client.post(server.url("/v1/jobs")).header("idempotency-key", "mine");
    Reply::of(mine.body("{\"model\":\"sum\"}\n{\"text\":\"100\"}")).await;
    fs::write(&output, "").unwrap();
    let refused = finish(run()).await;
    assert!(
        !refused.status.success() && stderr(&refused).contains("options or rows are others"),
        "{}",
        stderr(&refused)
    );
    assert!(note.exists(), "it says which job is meant");
}

#[tokio::test]
async fn bad_rows_of_a_job_are_told_and_those_that_are_mended_are_handed_over_again() {
    let repository = Repository::with_sum();
    let (server, files) = (Server::of(&repository).await, Files::new());
    let mut rows = samples(8);
    let (input, output) = (files.path("samples.jsonl"), files.path("scores.jsonl"));
    let (url, note) = (server.url(""), files.path("scores.jsonl.job"));
    let flags = ["--server", &url, "--job"];
    let write = |rows: &[Value]| {
        files.write("samples.jsonl", rows);
    };
    let sound = rows[2].clone();
    // What can't be handed over is told before anything is.
    rows[2] = json!({"prompt": "", "response": " "});
    write(&rows);
    let stopped = finish(score(&input, &output, &flags)).await;
    assert!(stderr(&stopped).contains("line 3: ") && stderr(&stopped).contains("--skip-bad-rows"), "{stopped:?}");
    assert_eq!((lines(&output).len(), note.exists()), (0, false));
    // What the model can't score is told in its turn.
    rows[2] = json!({"prompt": "", "response": "11 ".repeat(65)});
    write(&rows);
    let stopped = finish(score(&input, &output, &flags)).await;
    assert!(stderr(&stopped).contains("line 3: ") && stderr(&stopped).contains("at most 64"), "{stopped:?}");
    assert_eq!((lines(&output).len(), note.exists()), (2, false));
    rows[2] = sound;
    write(&rows);
    let done = finish(score(&input, &output, &flags)).await;
    assert!(done.status.success(), "{}", stderr(&done));
    assert_every_row_once(&output, 8);

    rows[4] = json!({"prompt": "", "response": " "});
    rows[6] = json!({"prompt": "", "response": "11 ".repeat(65)});
    write(&rows);
    let skipped = files.path("skipped.jsonl");
    let done = finish(score(&input, &skipped, &[&flags[..], &["--skip-bad-rows"]].concat())).await;
    assert!(done.status.success() && stderr(&done).contains("2 bad rows were skipped"), "{}", stderr(&done));
    for (index, line) in (0..).zip(&lines(&skipped)) {
        assert_eq!(
            (line["row"].as_u64(), line.get("error").is_some()),
            (Some(index), [4, 6].contains(&index)),
            "{line}"
        );
    }
}
