//! `karat score` on rows that hold images: files beside the input, and data.

use std::fs;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use image::ImageFormat;
use serde_json::json;

use super::{Files, finish, lines, stderr};
use crate::{
    images::{self, likeness},
    support::{Server, is_close, karat},
};

#[tokio::test]
async fn rows_name_files_or_hold_data() {
    let repository = images::repository();
    let (server, files) = (Server::of(&repository).await, Files::new());
    let colours = [[9, 99, 199], [250, 0, 3]];
    let [first, second] = colours.map(|colour| images::file(colour, ImageFormat::Png));
    fs::create_dir(files.path("shown")).unwrap();
    fs::write(files.path("shown/first.png"), first).unwrap();
    let data = format!("data:image/png;base64,{}", BASE64_STANDARD.encode(second));
    let rows = [
        json!({"prompt": "200", "image": "shown/first.png"}),
        json!({"prompt": "200", "image": data}),
        json!({"prompt": "200", "image": "shown/second.png"}),
    ];
    let input = files.write("rows.jsonl", &rows);
    let (url, models) = (server.url(""), repository.path().to_str().unwrap());
    for (name, backend) in [("remote", ["--server", &url]), ("local", ["--models", models])] {
        let output = files.path(name);
        let mut command = karat(&["score", input.to_str().unwrap(), "--output", output.to_str().unwrap()]);
        command.args(["--model", "likeness", "--skip-bad-rows"]).args(backend);
        let done = finish(command).await;
        assert!(done.status.success(), "{}", stderr(&done));
        let scored = lines(&output);
        for (line, colour) in scored.iter().zip(colours) {
            assert!(is_close(line["reward"].as_f64().unwrap(), likeness(colour, 200.0)), "{line}");
        }
        assert!(scored[2]["error"].as_str().is_some_and(|told| told.contains("second.png")), "{}", scored[2]);
    }
}
