//! Workers that share a device, and several devices behind one queue.

use karat_runtime::fake::FakeDevice;

use super::*;

/// A scheduler over these sessions.
fn over(parallel: Vec<Box<dyn Executor>>, budget: usize) -> Scheduler {
    let policy = Policy { budget, ..Policy::default() };
    let executors = Executors { parallel, single: None };
    Scheduler::start(executors, policy, QueueLimits::default(), Recorded::new().model).unwrap()
}

/// What each of a control's batches begin with.
fn begin_with(control: &FakeControl) -> Vec<u32> {
    control.batches().iter().flatten().map(|ids| ids[0]).collect()
}

#[tokio::test]
async fn a_batch_is_made_ready_while_one_runs_once_as_much_waits() {
    let (control, device) = (FakeControl::new(), FakeDevice::knowing(&[]));
    let scheduler = over(vec![control.executor_on(&device), control.executor_on(&device)], 512);
    control.close();
    let mut tickets = scheduler.submit(vec![job(&[1, 1, 1, 1])]).unwrap();
    control.wait_for_held(1);
    tickets.extend(scheduler.submit(vec![job(&[2, 2])]).unwrap());
    tickets.extend(scheduler.submit(vec![job(&[3, 3])]).unwrap());
    // The second is there before the first has ended.
    control.wait_for_held(2);
    assert_eq!(control.batches()[1], [[2, 2], [3, 3]], "one alone was less than what runs");
    control.open();
    for ticket in tickets {
        ticket.await.unwrap();
    }
}

#[tokio::test]
async fn jobs_go_to_the_device_that_knows_their_beginning() {
    let (one, other) = (FakeControl::new(), FakeControl::new());
    let [knows_1, knows_2] = [1, 2].map(|first| FakeDevice::knowing(&[first]));
    let scheduler = over(vec![one.executor_on(&knows_1), other.executor_on(&knows_2)], 512);
    let all: Vec<Vec<u32>> = (0..40).map(|number| vec![number % 2 + 1, number]).collect();
    let mut tickets = Vec::new();
    for ids in &all {
        tickets.extend(scheduler.submit(vec![job(ids)]).unwrap());
    }
    for (ticket, ids) in tickets.into_iter().zip(&all) {
        assert_score(&ticket.await, ids);
    }
    assert_eq!((begin_with(&one), begin_with(&other)), (vec![1; 20], vec![2; 20]));
}

#[tokio::test]
async fn what_waits_behind_a_full_batch_of_one_device_goes_to_another() {
    let (one, other) = (FakeControl::new(), FakeControl::new());
    let [knows_1, knows_2] = [1, 2].map(|first| FakeDevice::knowing(&[first]));
    let scheduler = over(vec![one.executor_on(&knows_1), other.executor_on(&knows_2)], 4);
    other.close();
    let mut tickets = scheduler.submit(vec![job(&[2])]).unwrap();
    other.wait_for_held(1);
    let more = (0..4).map(|number| job(&[2, number])).collect();
    tickets.extend(scheduler.submit(more).unwrap());
    // Two of them fill a batch of the device that knows them; it is held, and the others are done.
    for ticket in tickets.split_off(3) {
        ticket.await.unwrap();
    }
    assert_eq!((begin_with(&one), begin_with(&other)), (vec![2; 2], vec![2]));
    other.open();
    for ticket in tickets {
        ticket.await.unwrap();
    }
    assert_eq!((begin_with(&one), begin_with(&other)), (vec![2; 2], vec![2; 3]));
}
