//! Jobs: rows in, results out by offset.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Reply, Repository, Server, Unserved, is_close};

/// Waits until a job has ended; how it is then.
async fn ended(server: &Server, id: &str) -> Value {
    for _ in 0..600 {
        let job = server.get(&format!("/v1/jobs/{id}")).await.body;
        if !job["ended"].is_null() {
            return job;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the job never ended")
}

async fn submit(server: &Server, body: impl Into<reqwest::Body>) -> Reply {
    Reply::of(server.client.post(server.url("/v1/jobs")).body(body)).await
}

/// The results from an offset on, and the next offset.
async fn results(server: &Server, id: &str, offset: u64, limit: u64) -> (Vec<Value>, u64) {
    let reply = server.get(&format!("/v1/jobs/{id}/results?offset={offset}&limit={limit}")).await;
    assert_eq!((reply.status, reply.header("content-type")), (200, "application/x-ndjson"), "{}", reply.text);
    let lines = reply.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (lines, reply.header("x-karat-next-offset").parse().unwrap())
}

#[tokio::test]
async fn lines_are_scored_in_order_and_their_results_come_by_offset() {
    let server = Server::of(&Repository::with_sum()).await;
    let rows: String = (0..100).map(|row| format!("{{\"text\": \"{}\"}}\n", 100 + row)).collect();
    let accepted = submit(&server, format!("{{\"model\": \"sum\"}}\n\n{rows}")).await;
    assert_eq!(accepted.status, 202, "{}", accepted.text);
    assert_eq!((&accepted.body["rows"], &accepted.body["lasts"]), (&json!(100), &json!(false)));
    let id = accepted.body["id"].as_str().unwrap();
    let done = ended(&server, id).await;
    assert_eq!((&done["state"], &done["done"], &done["failed"]), (&json!("done"), &json!(100), &json!(0)));
    let (mut all, mut offset) = (Vec::new(), 0);
    loop {
        let (some, next) = results(&server, id, offset, 33).await;
        if some.is_empty() {
            break;
        }
        all.extend(some);
        offset = next;
    }
    assert_eq!(all.len(), 100);
    for (row, result) in all.iter().enumerate() {
        assert_eq!(result["index"], row);
        assert!(is_close(result["reward"].as_f64().unwrap(), (100 + row) as f64 / 1000.0), "{result}");
    }
    assert_eq!(server.get("/v1/jobs").await.body["jobs"][0]["id"], id);
}

#[tokio::test]
async fn a_body_like_that_of_score_is_a_job_too_and_belongs_to_a_run() {
    let server = Server::of(&Repository::with_sum()).await;
    let body = json!({"model": "sum", "run": "a", "transforms": [{"affine": {"scale": 2}}], "include": ["members"],
                      "inputs": [{"text": "100"}, {"text": "200"}]});
    for body in [body.to_string(), serde_json::to_string_pretty(&body).unwrap()] {
        let accepted = submit(&server, body).await;
        assert_eq!(accepted.status, 202, "{}", accepted.text);
        let id = accepted.body["id"].as_str().unwrap();
        ended(&server, id).await;
        let (all, _) = results(&server, id, 0, 10).await;
        assert!(
            is_close(all[1]["reward"].as_f64().unwrap(), 0.4) && all[1]["ensemble"]["members"].is_array(),
            "{all:?}"
        );
    }
    assert_eq!(server.get("/v1/runs/a").await.body["samples"], 4);
}

#[tokio::test]
async fn outcomes_name_a_job_and_a_row() {
    let server = Server::of(&Repository::with_sum()).await;
    let rows: String = (0..70).map(|row| format!("{{\"text\": \"{}\"}}\n", 100 + row)).collect();
    let accepted = submit(&server, format!("{{\"model\": \"sum\", \"run\": \"a\"}}\n{rows}")).await;
    let id = accepted.body["id"].as_str().unwrap();
    ended(&server, id).await;
    let outcomes: Vec<Value> = (7..71).map(|row| json!({"request": id, "index": row, "value": row})).collect();
    let told = server.post_to("/v1/runs/a/outcomes", &json!({ "outcomes": outcomes })).await;
    assert_eq!(told.body, json!({"accepted": 63, "repeated": 0, "unknown": [63]}), "{}", told.text);
    // Each beside its own row's reward: both rise from row to row.
    let correlation = &server.get("/v1/runs/a").await.body["models"][0]["outcomes"]["correlation"];
    assert!(is_close(correlation.as_f64().unwrap(), 1.0), "{correlation}");
}

#[tokio::test]
async fn a_row_that_can_not_be_scored_fails_alone() {
    let server = Server::of(&Repository::with_sum()).await;
    let long = vec!["100"; 65].join(" ");
    let accepted = submit(
        &server,
        format!("{{\"model\":\"sum\"}}\n{{\"text\":\"100\"}}\n{{\"text\":\"{long}\"}}\n{{\"text\":\"101\"}}"),
    )
    .await;
    let id = accepted.body["id"].as_str().unwrap();
    let done = ended(&server, id).await;
    assert_eq!((&done["done"], &done["failed"]), (&json!(3), &json!(1)));
    let (all, _) = results(&server, id, 0, 10).await;
    assert_eq!((&all[1]["index"], &all[1]["error"]["type"]), (&json!(1), &json!("urn:karat:problem:too-long")));
    assert!(is_close(all[2]["reward"].as_f64().unwrap(), 0.101));
}

#[tokio::test]
async fn what_is_no_job_is_refused_whole() {
    let server = Server::of(&Repository::with_sum()).await;
    let head = "{\"model\":\"sum\"}\n";
    for (body, status, slug, needle) in [
        (String::new(), 422, "invalid-request", "no rows"),
        (head.to_owned(), 422, "invalid-request", "no rows"),
        (format!("{head}{{\"text\":\"1\"}}\n{{\"texts\":\"1\"}}\n"), 422, "invalid-request", "row 1"),
        (format!("{head}{{\"text\":\"1\"}}\nnot JSON\n"), 400, "malformed-json", "row 1"),
        ("{\"model\":\"other\"}\n{\"text\":\"1\"}\n".to_owned(), 404, "unknown-model", "other"),
        (
            "{\"model\":\"sum\",\"agregate\":\"mean\"}\n{\"text\":\"1\"}\n".to_owned(),
            422,
            "invalid-request",
            "agregate",
        ),
        ("{\"model\":\"sum\",\"counts\":[1]}\n{\"text\":\"1\"}\n".to_owned(), 422, "invalid-request", "counts"),
        (
            "{\"model\":\"sum\",\"transforms\":[\"rloo\"]}\n{\"text\":\"1\"}\n".to_owned(),
            422,
            "invalid-request",
            "rloo",
        ),
    ] {
        submit(&server, body).await.assert_problem(status, slug, needle);
    }
    assert_eq!(server.get("/v1/jobs").await.body["jobs"], json!([]));
    server.get("/v1/jobs/other").await.assert_problem(404, "unknown-job", "GET /v1/jobs");
    server.get("/v1/jobs/other/results").await.assert_problem(404, "unknown-job", "GET /v1/jobs");
}

#[tokio::test]
async fn a_job_that_is_sent_again_is_the_same_job() {
    let server = Server::of(&Repository::with_sum()).await;
    let send = async |name: &str, body: &str| {
        let request = server.client.post(server.url("/v1/jobs")).header("idempotency-key", name);
        Reply::of(request.body(body.to_owned())).await
    };
    let body = "{\"model\":\"sum\"}\n{\"text\":\"100\"}\n{\"text\":\"101\"}\n";
    let first = send("\"mine\"", body).await;
    let id = first.body["id"].as_str().unwrap();
    ended(&server, id).await;
    // Blank lines and a last one without its end are no other rows.
    for same in [body, "\n{\"model\":\"sum\"}\n\n{\"text\":\"100\"}\n{\"text\":\"101\"}"] {
        let again = send("mine", same).await;
        assert_eq!(
            (again.status, &again.body["id"], &again.body["done"]),
            (202, &json!(id), &json!(2)),
            "{}",
            again.text
        );
    }
    for other in [
        "{\"model\":\"sum\"}\n{\"text\":\"100\"}\n",
        "{\"model\":\"sum\",\"include\":[\"members\"]}\n{\"text\":\"100\"}\n{\"text\":\"101\"}\n",
    ] {
        send("mine", other).await.assert_problem(422, "other-job", id);
    }
    send("not one", body).await.assert_problem(422, "invalid-request", "Idempotency-Key");
    assert_ne!(send("another", body).await.body["id"], id);
    assert_eq!(server.get("/v1/jobs").await.body["jobs"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_job_may_be_larger_than_any_body() {
    let unserved = Unserved::new();
    let most = unserved.limits.body_bytes;
    unserved.load(&Repository::with_sum()).await.unwrap();
    let server = unserved.serve().await;
    let rows: String = (0..6000).map(|row| format!("{{\"text\": \"{}\"}}\n", 100 + row % 7)).collect();
    assert!(rows.len() > most);
    let accepted = submit(&server, format!("{{\"model\": \"sum\"}}\n{rows}")).await;
    assert_eq!((accepted.status, &accepted.body["rows"]), (202, &json!(6000)), "{}", accepted.text);
    assert_eq!(ended(&server, accepted.body["id"].as_str().unwrap()).await["done"], 6000);
    let one = format!("{{\"model\": \"sum\"}}\n{{\"text\": \"{}\"}}\n", "1".repeat(most + 1000));
    submit(&server, one).await.assert_problem(413, "body-too-large", "a line");
}

#[tokio::test]
async fn a_job_can_be_cancelled_and_removed() {
    let server = Server::of(&Repository::with_sum()).await;
    let rows: String =
        (0..20_000).map(|row| format!("{{\"text\": \"{} {}\"}}\n", 100 + row % 190, 100 + row / 190)).collect();
    let accepted = submit(&server, format!("{{\"model\": \"sum\"}}\n{rows}")).await;
    let path = format!("/v1/jobs/{}", accepted.body["id"].as_str().unwrap());
    let cancelled = Reply::of(server.client.delete(server.url(&path))).await;
    assert_eq!(cancelled.body["state"], "cancelled", "{}", cancelled.text);
    let done = cancelled.body["done"].as_u64().unwrap();
    let left = server.get(&path).await.body;
    assert_eq!(left["done"], done, "nothing is done after that");
    assert_eq!(Reply::of(server.client.delete(server.url(&path))).await.status, 200);
    assert_eq!(server.get(&path).await.status, 404);
}
