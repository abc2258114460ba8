//! `karat inspect`: what a folder would be served as, for people and for programs.

use super::*;

#[test]
fn inspect_shows_the_manifest_that_a_checkpoint_gets_and_writes_it_once() {
    let folders: Vec<PathBuf> = recorded().into_iter().filter(|folder| name(folder) == "openrlhf").collect();
    let repository = repository(&folders);
    let folder = repository.path().join("openrlhf");
    let inspect = |flags: &[&str]| {
        let output = karat(&[&["inspect", folder.to_str().unwrap()], flags].concat()).output().unwrap();
        let text = if output.status.success() { output.stdout } else { output.stderr };
        (output.status.success(), String::from_utf8(text).unwrap())
    };
    let (shown, manifest) = inspect(&["--write"]);
    assert!(shown && manifest.contains("[transforms.affine]") && manifest.contains("stored as BF16"), "{manifest}");
    assert!(manifest.contains("MB of memory for weights") && manifest.contains("On an NVIDIA GPU"), "{manifest}");
    assert!(
        manifest.contains("its head is value_head") && manifest.contains("divided by their deviation"),
        "{manifest}"
    );
    assert!(manifest.contains("4 of 4 references within 0.0001"), "{manifest}");
    let written = fs::read_to_string(folder.join("model.toml")).unwrap();
    assert!(manifest.ends_with(&written) && written.contains("checkpoint = \".\""), "{written}");
    let (again, error) = inspect(&["--write"]);
    assert!(!again && error.contains("pins digests already"), "{error}");
    assert!(written.contains("[digests]\n\"config.json\" = \"sha256:"), "{written}");
    repository.write(
        "openrlhf",
        "expected.json",
        "{\"tolerance\": 0, \"cases\": [{\"response\": \"a\", \"reward\": 9}]}",
    );
    let (held, error) = inspect(&[]);
    assert!(!held && error.contains("1 of 1 scores"), "{error}");
    fs::remove_file(folder.join("expected.json")).unwrap();
    let (shown, manifest) = inspect(&[]);
    assert!(shown && manifest.contains("nobody has compared"), "{manifest}");
    fs::remove_file(folder.join("tokenizer.json")).unwrap();
    let (served, error) = inspect(&[]);
    assert!(!served && error.contains("tokenizer.json"), "{error}");
}

#[test]
fn inspect_says_that_a_template_keeps_a_model_from_being_served() {
    let folders: Vec<PathBuf> = recorded().into_iter().filter(|folder| name(folder) == "mistral").collect();
    let repository = repository(&folders);
    let folder = repository.path().join("mistral");
    fs::remove_file(folder.join("expected.json")).unwrap();
    let template = "{{ strftime_now('%Y') }}{% for m in messages %}{{ m.content }}{% endfor %}";
    repository.write("mistral", "chat_template.jinja", template);
    let inspect = |folder: &str| {
        let mut command = karat(&["inspect", folder]);
        let told = command.current_dir(repository.path()).output().unwrap();
        let (shown, said) = (String::from_utf8(told.stdout).unwrap(), String::from_utf8(told.stderr).unwrap());
        (told.status.success(), shown, said)
    };
    let (served, shown, said) = inspect("./mistral");
    assert!(!served && shown.contains("chat_template") && said.contains("date"), "{shown} {said}");
    fs::remove_file(folder.join("chat_template.jinja")).unwrap();
    assert!(inspect("./mistral").0);
}

#[test]
fn inspect_says_how_a_model_is_computed_on_a_gpu_and_why() {
    let padded = [("deberta-v3", "attention to distances"), ("modernbert", "look ahead")];
    let packed = [("mixtral", "beside its blocks of keys and values")];
    let whys = [padded.as_slice(), &packed].concat();
    let is_one = |folder: &PathBuf| whys.iter().any(|(name_of_one, _)| name(folder) == *name_of_one);
    let folders: Vec<PathBuf> = recorded().into_iter().filter(is_one).collect();
    let repository = repository(&folders);
    for (name, why) in &whys {
        let folder = repository.path().join(name);
        let output = karat(&["inspect", folder.to_str().unwrap(), "--json"]).output().unwrap();
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(told["gpu_mb"].is_number(), "{told}");
        let is_padded = padded.iter().any(|(name_of_one, _)| name_of_one == name);
        assert_eq!(told["gpu_padded"].as_str().is_some_and(|told| told.contains(why)), is_padded, "{told}");
        let output = karat(&["inspect", folder.to_str().unwrap()]).output().unwrap();
        let told = String::from_utf8(output.stdout).unwrap();
        let sentence = told.lines().find(|line| line.contains("On an NVIDIA GPU")).unwrap();
        assert!(sentence.contains("in 16 bits") && sentence.contains(why), "{sentence}");
    }
}

#[test]
fn inspect_tells_programs_what_it_tells_people() {
    let folders: Vec<PathBuf> = recorded().into_iter().filter(|folder| name(folder) == "openrlhf").collect();
    let repository = repository(&folders);
    let inspect = |name: &str| {
        let folder = repository.path().join(name);
        let output = karat(&["inspect", folder.to_str().unwrap(), "--json"]).output().unwrap();
        (output.status.success(), serde_json::from_slice::<Value>(&output.stdout).unwrap())
    };
    let (served, told) = inspect("openrlhf");
    assert!(served && told["served"] == true && told["problems"] == json!([]), "{told}");
    assert_eq!((&told["stored_as"], &told["references"]["count"]), (&json!(["BF16"]), &json!(4)));
    assert!(told["parameters"].as_u64() > Some(1000) && told["reasons"].as_array().unwrap().len() > 2, "{told}");
    assert!(told["manifest"].as_str().unwrap().contains("[transforms.affine]"), "{told}");

    repository.write(
        "openrlhf",
        "expected.json",
        "{\"tolerance\": 0, \"cases\": [{\"response\": \"a\", \"reward\": 9}]}",
    );
    let (served, told) = inspect("openrlhf");
    assert!(!served && told["served"] == false && told["references"].is_null(), "{told}");
    assert!(told["problems"][0].as_str().unwrap().contains("1 of 1 scores") && told["manifest"].is_string(), "{told}");

    let config =
        json!({"model_type": "llama", "architectures": ["LlamaForSequenceClassification"], "hidden_act": "odd"});
    repository.write("broken", "config.json", config.to_string());
    let (served, told) = inspect("broken");
    assert!(!served && told.get("manifest").is_none(), "{told}");
    // Each by itself.
    assert!(told["problems"].as_array().unwrap().len() > 2, "{told}");
}
