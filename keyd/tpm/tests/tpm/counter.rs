//! The monotonic counter that a store is bound to.

use keyd_core::Reason;
use keyd_tpm::Counter;

use crate::Node;
use peers::interposer::{Interposer, Meddle, NV_READ};

const HANDLE: u32 = 0x0180_4b44;
const NAME: &str = "0x1804b44";

#[tokio::test]
async fn it_counts_one_by_one_and_doing_a_step_twice_is_doing_it_once() {
    let mut node = Node::new();
    let tpm = node.tpm();
    let ours = tpm.counter_authorization().unwrap();
    assert_eq!(tpm.counter(HANDLE, Some(&ours)).await.unwrap(), Counter::Absent);
    let first = tpm.make_counter(HANDLE, &ours).await.unwrap();
    assert_eq!(tpm.make_counter(HANDLE, &ours).await.unwrap(), first, "twice is once");
    tpm.advance_counter(HANDLE, &ours, first + 1).await.unwrap();
    tpm.advance_counter(HANDLE, &ours, first + 1).await.unwrap();
    assert_eq!(tpm.counter(HANDLE, Some(&ours)).await.unwrap(), Counter::At(first + 1));
    for elsewhere in [0, first, first + 3] {
        let failure = tpm.advance_counter(HANDLE, &ours, elsewhere).await.unwrap_err();
        assert_eq!(failure.reason, Reason::StoreRolledBack, "{failure}");
        assert!(failure.message.contains(&format!("{HANDLE:#x} is at {}", first + 1)), "{failure}");
    }
    node.swtpm.restart().unwrap();
    assert_eq!(tpm.counter(HANDLE, Some(&ours)).await.unwrap(), Counter::At(first + 1), "as the power went");
}

#[tokio::test]
async fn without_its_authorization_it_neither_reads_nor_counts() {
    let node = Node::new();
    let tpm = node.tpm();
    let (ours, other) = (tpm.counter_authorization().unwrap(), tpm.counter_authorization().unwrap());
    let first = tpm.make_counter(HANDLE, &ours).await.unwrap();
    for wrong in [None, Some(&other)] {
        assert_eq!(tpm.counter(HANDLE, wrong).await.unwrap(), Counter::Foreign);
    }
    assert_eq!(tpm.make_counter(HANDLE, &other).await.unwrap_err().reason, Reason::TpmFailed);
    let failure = tpm.advance_counter(HANDLE, &other, first + 1).await.unwrap_err();
    assert_eq!(failure.reason, Reason::StoreRolledBack, "{failure}");
    drop(tpm);
    for arguments in [&["-C", NAME, NAME][..], &["-C", "o", NAME]] {
        let output = node.swtpm.tool("tpm2_nvincrement").args(arguments).output().unwrap();
        assert!(!output.status.success(), "{arguments:?}");
    }
    assert_eq!(node.tpm().counter(HANDLE, Some(&ours)).await.unwrap(), Counter::At(first));
}

#[tokio::test]
async fn made_anew_by_whoever_owns_the_tpm_it_is_beyond_all_that_it_was() {
    let node = Node::new();
    let tpm = node.tpm();
    let ours = tpm.counter_authorization().unwrap();
    let mut last = tpm.make_counter(HANDLE, &ours).await.unwrap();
    for _ in 0..3 {
        last += 1;
        tpm.advance_counter(HANDLE, &ours, last).await.unwrap();
    }
    drop(tpm);
    node.tool("tpm2_nvundefine", &["-C", "o", NAME]);
    let tpm = node.tpm();
    assert_eq!(tpm.counter(HANDLE, Some(&ours)).await.unwrap(), Counter::Absent);
    // With the very authorization, as somebody could who has read an old copy of the store.
    assert!(tpm.make_counter(HANDLE, &ours).await.unwrap() > last);
    tpm.remove_counter(HANDLE).await.unwrap();
    tpm.remove_counter(HANDLE).await.unwrap();
    assert_eq!(tpm.counter(HANDLE, Some(&ours)).await.unwrap(), Counter::Absent);
}

#[tokio::test]
async fn memory_that_says_the_right_number_and_is_no_counter_is_foreign() {
    let node = Node::new();
    let ours = node.tpm().counter_authorization().unwrap();
    let password = format!("hex:{}", hex::encode(ours.expose()));
    node.tool(
        "tpm2_nvdefine",
        &["-C", "o", "-s", "8", "-p", &password, "-a", "authread|authwrite|no_da", NAME],
    );
    std::fs::write(node.dir.path().join("seven"), 7_u64.to_be_bytes()).unwrap();
    node.tool("tpm2_nvwrite", &["-C", NAME, "-P", &password, "-i", "seven", NAME]);
    assert_eq!(node.tpm().counter(HANDLE, Some(&ours)).await.unwrap(), Counter::Foreign);
}

#[tokio::test]
async fn a_number_altered_on_the_bus_is_refused() {
    let node = Node::new();
    let bus = Interposer::before(&node.swtpm).unwrap();
    let tpm = keyd_tpm::Tpm::open(crate::config(&bus.tcti())).unwrap();
    let ours = tpm.counter_authorization().unwrap();
    let first = tpm.make_counter(HANDLE, &ours).await.unwrap();
    bus.meddle(Meddle::AlterAnswer(NV_READ));
    let failure = tpm.counter(HANDLE, Some(&ours)).await.unwrap_err();
    assert!(bus.has_meddled());
    assert_eq!(failure.reason, Reason::TpmFailed);
    assert!(failure.message.contains("altered the answer"), "{failure}");
    assert!(!bus.saw(ours.expose()), "its authorization never crosses in clear");
    assert_eq!(tpm.counter(HANDLE, Some(&ours)).await.unwrap(), Counter::At(first));
}
