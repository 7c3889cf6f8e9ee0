//! The processes that want to know when a mapping has faulted, and the thread that tells them.
//!
//! The subscribers of all images are at the oldest one (`image::subscribe`). The handler of SIGBUS, after it has put zero pages under a
//! mapping of any image for the first time, wakes the thread of that one; the thread asks each image what has faulted, and sends. A
//! lock is held while messages are sent, so that none is on its way when a subscription has ended.

use crate::{atoms, image};
use iommap_core::{start_thread, Wake};
use rustler::sys::{self, ErlNifEnv, ErlNifPid};
use rustler::{Encoder, Env, Term};
use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// After it has told of faults the thread waits so long: the next ones are told of together.
const PAUSE: Duration = Duration::from_millis(50);

struct Subscribers {
    processes: Vec<ErlNifPid>,
    /// Wakes the thread, once it was started; it never ends.
    wake: Option<Arc<Wake>>,
}

static SUBSCRIBERS: Mutex<Subscribers> = Mutex::new(Subscribers {
    processes: Vec::new(),
    wake: None,
});

fn lock() -> MutexGuard<'static, Subscribers> {
    // What a panic leaves is as good as before it.
    SUBSCRIBERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Subscribes the calling process, if it is not subscribed already. What has faulted before is told to those who were.
pub fn subscribe(env: Env) -> Result<(), c_int> {
    let mut subscribers = lock();
    let descriptor = subscribers.start()?;
    image::images().for_each(|image| image.watch(descriptor));
    subscribers.tell(env.as_c_arg());
    let process = calling_process(env);
    subscribers.processes.retain(|other| is_alive(env, other));
    if !subscribers.contains(&process) {
        subscribers.processes.push(process);
    }
    Ok(())
}

/// Ends the subscription of the calling process.
pub fn unsubscribe(env: Env) {
    let process = calling_process(env);
    let mut subscribers = lock();
    subscribers.processes.retain(|other| !same(other, &process));
}

impl Subscribers {
    /// Starts the thread, unless it runs; gives the descriptor that wakes it.
    fn start(&mut self) -> Result<c_int, c_int> {
        if let Some(wake) = &self.wake {
            return Ok(wake.descriptor());
        }
        let wake = Arc::new(Wake::new().map_err(|error| match error {
            iommap_core::Error::System(errno) => errno,
            _ => libc::EMFILE,
        })?);
        let waits = wake.clone();
        start_thread("iommap_faulted", move || run(&waits)).ok_or(libc::EAGAIN)?;
        let descriptor = wake.descriptor();
        self.wake = Some(wake);
        Ok(descriptor)
    }

    fn contains(&self, process: &ErlNifPid) -> bool {
        self.processes.iter().any(|other| same(other, process))
    }

    /// Sends `{iommap, faulted, Info}` to all, for each mapping of any image that has faulted since the last time. `caller` is the
    /// environment of the running call, or null on a thread of ours. Who is dead is no subscriber any more.
    fn tell(&mut self, caller: *mut ErlNifEnv) {
        // SAFETY: the environment is made here, and freed when nothing of it is left.
        unsafe {
            let made = sys::enif_alloc_env();
            {
                let lifetime = ();
                let env = Env::new(&lifetime, made);
                for message in messages(env) {
                    let send = |process: &ErlNifPid| {
                        let (none, term) = (ptr::null_mut(), message.as_c_arg());
                        sys::enif_send(caller, process, none, term) != 0
                    };
                    self.processes.retain(send);
                }
            }
            sys::enif_free_env(made);
        }
    }
}

fn messages<'a>(env: Env<'a>) -> Vec<Term<'a>> {
    let faulted = image::images().filter_map(|image| image.take_faulted(env));
    let infos = faulted.filter_map(|list| list.decode::<Vec<Term>>().ok());
    let message = |info: Term<'a>| (atoms::iommap(), atoms::faulted(), info).encode(env);
    infos.flatten().map(message).collect()
}

fn run(wake: &Wake) {
    loop {
        wake.wait();
        lock().tell(ptr::null_mut());
        std::thread::sleep(PAUSE);
    }
}

fn calling_process(env: Env) -> ErlNifPid {
    let mut process = MaybeUninit::uninit();
    // SAFETY: the environment is that of a call of a process, which has a pid.
    unsafe {
        sys::enif_self(env.as_c_arg(), process.as_mut_ptr());
        process.assume_init()
    }
}

fn is_alive(env: Env, process: &ErlNifPid) -> bool {
    // SAFETY: the environment is the running call's.
    unsafe { sys::enif_is_process_alive(env.as_c_arg(), process) != 0 }
}

fn same(one: &ErlNifPid, other: &ErlNifPid) -> bool {
    // SAFETY: only compares.
    unsafe { sys::enif_compare_pids(one, other) == 0 }
}
