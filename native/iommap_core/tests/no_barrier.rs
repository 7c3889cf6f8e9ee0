//! The lock's own tests where the system has no barrier for all threads. They are compiled in here too, so that they can
//! be run in a process to which the system refuses it.

#![cfg(target_os = "linux")] // elsewhere there is none anyway
#![allow(dead_code, unused_imports)] // the lock needs a part of the files

#[path = "../src/buffer.rs"]
mod buffer;
#[path = "../src/error.rs"]
mod error;
#[path = "../src/lock/mod.rs"]
mod lock;
#[path = "../src/options.rs"]
mod options;
#[path = "../src/platform/mod.rs"]
mod platform;
mod rig;
#[path = "../src/sync.rs"]
mod sync;
#[path = "../src/thread_data.rs"]
mod thread_data;

#[test]
fn nobody_comes_in_without_the_barrier_once_the_lock_was_biased() {
    // A writer that the system refuses the barrier stops, rather than goes on while a reader may be on its way in.
    if rig::lacking_in_qemu("seccomp filters") {
        return;
    }
    rig::in_its_own_process(|| {
        if !platform::thread::has_barrier() {
            return rig::skip("no membarrier(2)");
        }
        let lock = lock::Lock::new(());
        (0..1000).for_each(|_| drop(lock.read()));
        rig::forbid_membarrier();
        let stopped = std::panic::AssertUnwindSafe(|| drop(lock.write()));
        assert!(std::panic::catch_unwind(stopped).is_err());
    });
}

#[test]
fn the_lock_keeps_its_promises_without_a_barrier() {
    // All tests of the lock pass in a process that is refused membarrier(2), which a new program does not change.
    if rig::lacking_in_qemu("seccomp filters") {
        return;
    }
    rig::in_its_own_process(|| {
        rig::forbid_membarrier();
        assert!(!platform::thread::has_barrier());
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .arg("lock::tests")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let passed = output.status.success() && !said.contains(" 0 passed");
        assert!(passed, "{said}");
    });
}
