//! What lasts, and what doesn't.

use super::*;
use crate::{
    registry::{Bounds, Runs},
    run::{Batch, Matched, Origin, Request, RequestKey, Run, RunName},
    statistics::{Gathered, testing::observation},
};
use karat_rules::transform::Learned;

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn name(text: &str) -> RunName {
    text.parse().unwrap()
}

fn outcome(request: &str, value: f64) -> Outcome {
    let matched = Matched { model: "m".parse().unwrap(), step: 3, reward: 0.5 };
    Outcome { request: request.to_owned(), place: 0, value, matched, at: 7 }
}

fn new_job(id: &str) -> NewJob {
    NewJob { id: id.to_owned(), options: "{}".to_owned(), key: Some("trainer".to_owned()) }
}

fn runs() -> Runs {
    Runs::new(Bounds { runs: 10, bytes: 1 << 30 })
}

/// Four samples of a request, for a run that is a key's.
fn score(runs: &Runs, run: &str, owner: Option<&str>) {
    let origin = Origin { step: Some(3), task: None, model: "m".parse().unwrap(), probabilities: false };
    let claim = runs.claim(&name(run), owner, || 1);
    let gathered = Gathered::of(&[observation(0.5); 4], &[]);
    let requests = &[(Request::whole(RequestKey::of("r")), 4)];
    let batch = Batch { origin: &origin, requests, samples: gathered.samples() };
    runs.add(&claim.run, std::iter::once(batch), 1);
}

#[test]
fn what_was_acknowledged_is_there_after_a_restart_whether_or_not_the_run_was_written_down() {
    let folder = tempfile::TempDir::new().unwrap();
    {
        let store = Store::open(Some(folder.path())).unwrap();
        let runs = runs();
        score(&runs, "a", Some("trainer"));
        let (new, last) = wait(store.add_outcomes(name("a"), vec![outcome("r", 1.0), outcome("s", 0.0)])).unwrap();
        assert_eq!(new, [true, true]);
        runs.add_outcomes(&name("a"), &[(outcome("r", 1.0).matched, 1.0), (outcome("s", 0.0).matched, 0.0)], last, 7);
        wait(store.save(&runs)).unwrap();
        // These are committed, and the run isn't written down again.
        wait(store.add_outcomes(name("a"), vec![outcome("t", 1.0)])).unwrap();
        let learned = Learned { count: 5, mean: 1.5, variance: 2.0, frozen: true };
        wait(store.keep_learned("m".parse().unwrap(), "v1".to_owned(), vec![learned])).unwrap();
    }
    let store = reopened(folder.path());
    let restored = runs();
    store.restore(&restored).unwrap();
    assert_eq!(restored.owner(&name("a")), Some(Some("trainer".to_owned())));
    let report = restored.report(&name("a")).unwrap();
    assert_eq!((report.samples, report.models[0].outcomes.as_ref().unwrap().samples), (4, 3));
    assert_eq!(report.models[0].calibration.unwrap().outcomes, 3);
    assert!(restored.find(&name("a"), "r", 3).is_some(), "later outcomes still find their rewards");
    let learned = store.all_learned().unwrap();
    let [((model, version), states)] = &learned[..] else { panic!("{learned:?}") };
    assert_eq!((model.as_str(), version.as_str(), states[0].count, states[0].frozen), ("m", "v1", 5, true));
}

/// The thread that had the file ends when its store is dropped, at its own time.
fn reopened(folder: &Path) -> Store {
    loop {
        match Store::open(Some(folder)) {
            Ok(store) => return store,
            Err(StoreError::Open { .. }) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn an_outcome_that_is_sent_again_counts_once() {
    let store = Store::open(None).unwrap();
    let send = || wait(store.add_outcomes(name("a"), vec![outcome("r", 1.0)])).unwrap().0;
    assert_eq!((send(), send()), (vec![true], vec![false]));
    assert_eq!(wait(store.outcomes(name("a"))).unwrap(), [outcome("r", 1.0)]);
}

#[test]
fn two_servers_can_not_share_a_folder() {
    let folder = tempfile::TempDir::new().unwrap();
    let _first = Store::open(Some(folder.path())).unwrap();
    let second = Store::open(Some(folder.path())).unwrap_err().to_string();
    assert!(second.contains("name another --state folder"), "{second}");
}

#[test]
fn a_run_that_was_let_go_is_gone_from_the_file_as_well() {
    let folder = tempfile::TempDir::new().unwrap();
    let store = Store::open(Some(folder.path())).unwrap();
    let runs = runs();
    score(&runs, "a", None);
    wait(store.save(&runs)).unwrap();
    runs.forget(&name("a"));
    wait(store.save(&runs)).unwrap();
    drop(store);
    let empty = self::runs();
    reopened(folder.path()).restore(&empty).unwrap();
    assert!(empty.list(|_| true).is_empty());
}

#[test]
fn a_state_that_nobody_can_read_stops_nobody() {
    let store = Store::open(None).unwrap();
    wait(store.call(|connection| connection.execute("INSERT INTO runs VALUES ('bad', 1, 0, '{')", []).map(drop)))
        .unwrap();
    let runs = runs();
    runs.restore(Run::new(name("good"), 1));
    store.restore(&runs).unwrap();
    assert_eq!(runs.list(|_| true).len(), 1);
}

#[test]
fn what_fails_takes_nothing_of_others_with_it() {
    let store = Store::open(None).unwrap();
    let jobs = JobStore::new(store).unwrap();
    wait(jobs.begin(new_job("a"), 1)).unwrap();
    assert!(wait(jobs.begin(new_job("a"), 2)).is_err(), "the id is taken");
    wait(jobs.add_rows("a".to_owned(), 0, vec!["x".to_owned()])).unwrap();
    assert!(wait(jobs.add_rows("a".to_owned(), 0, vec!["y".to_owned(), "z".to_owned()])).is_err());
    wait(jobs.accept("a".to_owned(), 1, None)).unwrap();
    let (_, rows) = wait(jobs.next("a".to_owned(), 10)).unwrap().unwrap();
    assert_eq!(rows, [JobRow { place: 0, body: "x".to_owned() }]);
}

fn result(place: u64, failed: bool) -> ResultRow {
    ResultRow { place, body: format!("result {place}"), failed }
}

#[test]
fn a_job_goes_on_where_it_was_and_unfinished_arrivals_are_dropped() {
    let folder = tempfile::TempDir::new().unwrap();
    {
        let jobs = JobStore::new(Store::open(Some(folder.path())).unwrap()).unwrap();
        wait(jobs.begin(new_job("whole"), 1)).unwrap();
        wait(jobs.add_rows("whole".to_owned(), 0, (0..5).map(|row| row.to_string()).collect())).unwrap();
        wait(jobs.accept("whole".to_owned(), 5, None)).unwrap();
        wait(jobs.finish("whole".to_owned(), vec![result(0, false), result(1, true)], 2)).unwrap();
        wait(jobs.begin(new_job("part"), 0)).unwrap();
        wait(jobs.add_rows("part".to_owned(), 0, vec!["x".to_owned()])).unwrap();
    }
    let jobs = JobStore::new(reopened(folder.path())).unwrap();
    assert_eq!(wait(jobs.find("part".to_owned())).unwrap(), None);
    let running = RunningJob { id: "whole".to_owned(), key: Some("trainer".to_owned()) };
    assert_eq!(wait(jobs.running()).unwrap(), [running]);
    let (job, rows) = wait(jobs.next("whole".to_owned(), 2)).unwrap().unwrap();
    assert_eq!(job.key.as_deref(), Some("trainer"));
    assert_eq!((job.rows, job.done, job.failed), (5, 2, 1));
    assert_eq!(rows.iter().map(|row| row.place).collect::<Vec<_>>(), [2, 3]);
    wait(jobs.finish("whole".to_owned(), (2..5).map(|place| result(place, false)).collect(), 9)).unwrap();
    let done = wait(jobs.find("whole".to_owned())).unwrap().unwrap();
    assert_eq!((done.state, done.ended), (JobState::Done, Some(9)));
    assert_eq!(wait(jobs.results("whole".to_owned(), 3, 10)).unwrap(), ["result 3", "result 4"]);
    assert!(wait(jobs.next("whole".to_owned(), 2)).unwrap().is_none() && wait(jobs.running()).unwrap().is_empty());
}

#[test]
fn a_cancelled_job_keeps_its_results_and_gets_no_more() {
    let jobs = JobStore::new(Store::open(None).unwrap()).unwrap();
    wait(jobs.begin(new_job("a"), 1)).unwrap();
    wait(jobs.add_rows("a".to_owned(), 0, vec!["x".to_owned(); 3])).unwrap();
    wait(jobs.accept("a".to_owned(), 3, None)).unwrap();
    wait(jobs.finish("a".to_owned(), vec![result(0, false)], 2)).unwrap();
    let job = wait(jobs.cancel("a".to_owned(), 3)).unwrap().unwrap();
    assert_eq!((job.state, job.done), (JobState::Cancelled, 1));
    // What was being scored meanwhile comes too late.
    wait(jobs.finish("a".to_owned(), vec![result(1, false)], 4)).unwrap();
    assert_eq!(wait(jobs.results("a".to_owned(), 0, 10)).unwrap().len(), 1);
    assert!(wait(jobs.next("a".to_owned(), 2)).unwrap().is_none());
    assert_eq!(wait(jobs.retain(3, 100)).unwrap(), 0);
    assert_eq!(wait(jobs.retain(4, 100)).unwrap(), 1);
    assert!(wait(jobs.list()).unwrap().is_empty());
}

/// A job of one row that arrives; what becomes of it.
fn handed_over(jobs: &JobStore, id: &str, key: Option<&str>, submission: Option<(&str, &str)>) -> Accepted {
    let submission = submission.map(|(name, digest)| Submission { name: name.to_owned(), digest: digest.to_owned() });
    wait(jobs.begin(NewJob { key: key.map(str::to_owned), ..new_job(id) }, 1)).unwrap();
    wait(jobs.add_rows(id.to_owned(), 0, vec!["x".to_owned()])).unwrap();
    wait(jobs.accept(id.to_owned(), 1, submission)).unwrap()
}

#[test]
fn a_job_that_is_handed_over_again_is_the_same_one() {
    let folder = tempfile::TempDir::new().unwrap();
    let jobs = JobStore::new(Store::open(Some(folder.path())).unwrap()).unwrap();
    for owner in [None, Some("trainer")] {
        let [first, again, other] = ["first", "again", "other"].map(|id| format!("{id} of {owner:?}"));
        assert_eq!(handed_over(&jobs, &first, owner, Some(("run 7", "rows"))), Accepted::New);
        assert_eq!(handed_over(&jobs, &again, owner, Some(("run 7", "rows"))), Accepted::Before(first.clone()));
        assert_eq!(handed_over(&jobs, &other, owner, Some(("run 7", "others"))), Accepted::Other(first));
        assert_eq!(wait(jobs.find(again)).unwrap().or(wait(jobs.find(other)).unwrap()), None);
    }
    assert_eq!(wait(jobs.waiting()).unwrap(), 2);
    // Without a name each is a job of its own.
    assert_eq!(["b", "c"].map(|id| handed_over(&jobs, id, None, None)), [Accepted::New, Accepted::New]);
    drop(jobs);
    // It is known after a restart, and forgotten with the job.
    let jobs = JobStore::new(reopened(folder.path())).unwrap();
    let again = || handed_over(&jobs, "again", None, Some(("run 7", "rows")));
    assert_eq!(again(), Accepted::Before("first of None".to_owned()));
    assert!(wait(jobs.remove("first of None".to_owned())).unwrap());
    assert_eq!(again(), Accepted::New);
}

/// From now on a file may have so many pages, and at least those that it has: with 1, its disk is full.
fn limit(connection: &Connection, pages: u32) {
    connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(())).unwrap();
}

#[test]
fn what_finds_no_room_is_refused_and_can_be_sent_again() {
    let folder = tempfile::TempDir::new().unwrap();
    {
        let store = Store::open(Some(folder.path())).unwrap();
        let jobs = JobStore::new(store.clone()).unwrap();
        handed_over(&jobs, "kept", None, None);
        wait(jobs.begin(new_job("large"), 1)).unwrap();
        let limit_to = |pages| {
            let limited = store.call(move |connection| {
                limit(connection, pages);
                Ok(())
            });
            wait(limited).unwrap();
        };
        let large = || wait(jobs.add_rows("large".to_owned(), 0, vec!["x".repeat(1 << 20)]));
        limit_to(1);
        assert!(matches!(large(), Err(StoreError::Full)));
        assert!(wait(jobs.find("kept".to_owned())).unwrap().is_some(), "what is there can be read");
        limit_to(100_000);
        large().unwrap();
        wait(jobs.accept("large".to_owned(), 1, None)).unwrap();
    }
    let jobs = JobStore::new(reopened(folder.path())).unwrap();
    let running = wait(jobs.running()).unwrap().into_iter().map(|job| job.id);
    assert_eq!(running.collect::<Vec<_>>(), ["kept", "large"]);
}

#[test]
fn what_is_told_to_be_kept_is_kept_whatever_finds_no_room_beside_it() {
    let connection = Connection::open_in_memory().unwrap();
    schema::create(&connection, None).unwrap();
    limit(&connection, 1);
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let write = |name: &'static str, bytes: usize| -> Box<dyn Call> {
        let told = Arc::clone(&told);
        let insert = move |connection: &Connection| {
            let state = "x".repeat(bytes);
            connection.execute("INSERT INTO runs VALUES (?1, 1, 0, ?2)", [name, &state]).map(drop)
        };
        let answer = move |result: Result<(), StoreError>| told.lock().unwrap().push((name, result.is_ok()));
        Box::new(Work { work: Some(insert), result: None, answer })
    };
    let mut waiting =
        VecDeque::from([write("before", 1), write("large", 1 << 20), write("after", 1), write("last", 1)]);
    while !waiting.is_empty() {
        commit_together(&connection, &mut waiting);
    }
    let mut kept = connection.prepare("SELECT name FROM runs").unwrap();
    let kept =
        kept.query_map([], |row| row.get::<_, String>(0)).unwrap().collect::<rusqlite::Result<Vec<_>>>().unwrap();
    let told = told.lock().unwrap();
    let told_kept = told.iter().filter(|(_, is_kept)| *is_kept).map(|(name, _)| *name);
    assert_eq!((told.len(), told_kept.collect::<Vec<_>>()), (4, vec!["after", "last"]));
    assert_eq!(kept, ["after", "last"]);
}
