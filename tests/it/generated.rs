//! What is generated from the code is committed as it is, and describes the server that runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use serde_json::{Map, Value};

use crate::support::{Repository, Server, karat, root, rust_files};

const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

fn document() -> Value {
    serde_json::from_str(&fs::read_to_string(root().join("openapi/openapi.json")).unwrap()).unwrap()
}

/// Each operation with its path.
fn operations(document: &Value) -> Vec<(&str, &str, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    paths
        .iter()
        .flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().iter().filter(|(method, _)| METHODS.contains(&method.as_str()));
            methods.map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
        })
        .collect()
}

#[test]
fn committed_files_are_those_that_the_code_generates() {
    let output = karat(&["generate", "--check"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let elsewhere = tempfile::TempDir::new().unwrap();
    let folder = elsewhere.path().to_str().unwrap();
    let missing = karat(&["generate", "--check", "--root", folder]).output().unwrap();
    assert!(!missing.status.success(), "a file that isn't there is no match");
    assert!(String::from_utf8_lossy(&missing.stderr).contains("openapi/openapi.json"));
    assert!(karat(&["generate", "--root", folder]).output().unwrap().status.success());
    assert!(karat(&["generate", "--check", "--root", folder]).output().unwrap().status.success());
}

#[test]
fn the_document_keeps_the_rules_of_openapi_3_1() {
    let document = document();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."), "{}", document["openapi"]);
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    assert!(document["info"]["title"].is_string());

    let mut ids = BTreeSet::new();
    for (path, method, operation) in operations(&document) {
        let place = format!("{method} {path}");
        assert!(path.starts_with('/'), "{place}");
        assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{place}: its id is taken");
        let written: BTreeSet<&str> =
            path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
        let parameters = operation["parameters"].as_array().map_or(&[][..], Vec::as_slice);
        let described: BTreeSet<&str> = parameters
            .iter()
            .filter(|parameter| parameter["in"] == "path" && parameter["required"] == true)
            .map(|parameter| parameter["name"].as_str().unwrap())
            .collect();
        assert_eq!(written, described, "{place}");
        let responses = operation["responses"].as_object().unwrap();
        assert!(responses.keys().any(|status| status.starts_with('2')), "{place}");
        for (status, response) in responses {
            assert!(status == "default" || status.parse::<u16>().is_ok_and(|s| (100..600).contains(&s)), "{place}");
            assert!(response["description"].is_string(), "{place} {status}");
        }
    }
    let mut objects = Vec::new();
    collect_objects(&document, &mut objects);
    let references = objects.iter().filter_map(|object| object.get("$ref")?.as_str());
    for reference in references {
        let target = reference.strip_prefix('#').and_then(|pointer| document.pointer(pointer));
        assert!(target.is_some(), "{reference} leads nowhere");
    }
    for schema in objects.iter().filter(|object| object.get("default").is_some_and(Value::is_null)) {
        assert!(takes_null(schema), "the default is null, which isn't allowed: {:?}", schema.get("description"));
    }
}

fn takes_null(schema: &Map<String, Value>) -> bool {
    let is_null = |kind: &Value| kind == "null" || kind.as_array().is_some_and(|kinds| kinds.contains(&"null".into()));
    let alternatives = schema.get("anyOf").and_then(Value::as_array);
    schema.get("type").is_some_and(is_null)
        || alternatives.is_some_and(|alternatives| alternatives.iter().any(|schema| is_null(&schema["type"])))
}

/// Every object of the document, whatever its place.
fn collect_objects<'a>(value: &'a Value, found: &mut Vec<&'a Map<String, Value>>) {
    match value {
        Value::Object(map) => {
            found.push(map);
            map.values().for_each(|value| collect_objects(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| collect_objects(value, found)),
        _ => {}
    }
}

/// The string after each `.route(` and `.api_route(` below `src/api`, and after each constructor of a dialect's route.
fn routes_in_the_code() -> BTreeSet<String> {
    let mut routes = BTreeSet::new();
    for file in rust_files(&root().join("src/api")) {
        let source = fs::read_to_string(file).unwrap();
        for call in [".route(", ".api_route(", "Route::new(", "Route::sharing("] {
            let written = source.split(call).skip(1).filter_map(|rest| rest.trim_start().strip_prefix('"'));
            routes.extend(written.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
        }
    }
    routes
}

#[tokio::test]
async fn the_document_lists_every_route_and_the_server_has_them() {
    let document = document();
    let mut described: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (path, method, _) in operations(&document) {
        described.entry(path).or_default().insert(method);
    }
    let mut routes = routes_in_the_code();
    for own in ["/openapi.json", "/docs"] {
        assert!(routes.remove(own), "{own} describes the others, and isn't described");
    }
    // A dialect's routes are written without its prefix, under which the document has them.
    let leads_to = |path: &str, route: &str| path == route || (path.ends_with(route) && !path.starts_with("/v1"));
    for route in &routes {
        assert!(described.keys().any(|path| leads_to(path, route)), "{route} is not described");
    }
    for path in described.keys() {
        assert!(routes.iter().any(|route| leads_to(path, route)), "{path} is not in the code");
    }

    let server = Server::of(&Repository::with_sum()).await;
    for (path, methods) in described {
        // A method that no route has is answered with those that this one has.
        let url = server.url(
            &path
                .replace("{name}", "sum")
                .replace("{model}", "sum")
                .replace("{version}", "1")
                .replace("{run}", "a")
                .replace("{job}", "a"),
        );
        let allowed = server.client.request(reqwest::Method::TRACE, url).send().await.unwrap();
        let allowed = allowed.headers()["allow"].to_str().unwrap().to_lowercase();
        let allowed: BTreeSet<&str> = allowed.split(',').filter(|method| *method != "head").collect();
        assert_eq!(allowed, methods, "{path}");
    }
}

#[tokio::test]
async fn the_server_hands_out_its_document_and_a_page_that_renders_it() {
    let server = Server::of(&Repository::with_sum()).await;
    let served = server.get("/openapi.json").await;
    assert_eq!((served.status, served.header("content-type")), (200, "application/json"));
    assert_eq!(served.text, fs::read_to_string(root().join("openapi/openapi.json")).unwrap());
    let page = server.get("/docs").await;
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").starts_with("text/html"), "{}", page.header("content-type"));
    assert!(page.text.contains("/openapi.json"), "the page renders the document");
}
