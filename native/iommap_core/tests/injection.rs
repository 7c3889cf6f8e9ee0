//! Failure at every system call of `open`, `truncate`, `remap` and `close` in turn, with each errno that it plausibly
//! has: what failed has done nothing, and what succeeded nevertheless has done all.
//!
//! The files are made in TMPDIR, which decides which file system is tried.

#![cfg(target_os = "linux")]

mod injector;
mod rig;
mod world;

use injector::{Call, Plan};
use iommap_core::{Access, Error, Options, Wait};
use rig::{
    in_its_own_process, open, page, pattern, pread, pwrite, set_size, show, skip, AHandle, Scratch,
    Shown,
};
use std::fmt::Write as _;
use std::io::{Seek, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use world::World;

/// Large enough for a growth that fails to leave something behind.
const LARGE: usize = 200_000;

/// What is done while system calls fail.
#[derive(Debug, Clone, Copy)]
enum Act {
    Open(Options),
    Truncate(usize),
    Remap,
    Close,
}

/// A file, a handle of it, and what is done.
#[derive(Clone, Copy)]
struct Scenario {
    name: &'static str,
    /// The size of the file; 0: there is none.
    file: usize,
    /// The handle that is there before.
    handle: Option<Options>,
    /// Whether a view of the handle lives.
    viewed: bool,
    /// The size that another process gives the file after that.
    resized: Option<usize>,
    act: Act,
}

/// The scenario at the moment before the act.
struct Stage {
    scratch: Scratch,
    path: PathBuf,
    handle: Option<AHandle>,
    view: Option<Shown>,
    /// What the handle shows.
    shown: Vec<u8>,
    /// What the file holds; `None`: there is none.
    held: Option<Vec<u8>>,
}

impl Scenario {
    fn prepare(&self) -> Stage {
        let scratch = Scratch::new();
        let path = if self.file == 0 {
            scratch.nothing()
        } else {
            scratch.file(self.file)
        };
        let mut held = (self.file > 0).then(|| pattern(self.file));
        let mut shown = Vec::new();
        let handle = self.handle.map(|options| open(&path, options).unwrap());
        if let Some(handle) = &handle {
            shown = pattern(self.file);
            self.write(handle, &mut shown, held.as_mut().unwrap());
        }
        let view = handle
            .as_ref()
            .filter(|_| self.viewed)
            .map(|handle| show(handle, 0, self.file).unwrap());
        if let Some(size) = self.resized {
            set_size(&path, size);
            held.as_mut().unwrap().resize(size, 0);
        }
        Stage {
            scratch,
            path,
            handle,
            view,
            shown,
            held,
        }
    }

    /// A byte at the start and one in the last page, where the handle may write.
    fn write(&self, handle: &AHandle, shown: &mut [u8], held: &mut [u8]) {
        for offset in [1, shown.len() - 1] {
            if self.writes() {
                pwrite(handle, offset, b"w").unwrap();
                shown[offset] = b'w';
                if !self.is_private() {
                    held[offset] = b'w';
                }
            }
        }
    }

    fn options(&self) -> Options {
        match self.act {
            Act::Open(options) => options,
            _ => self.handle.unwrap(),
        }
    }

    fn writes(&self) -> bool {
        self.options().access.writes()
    }

    fn is_private(&self) -> bool {
        self.options().private
    }

    /// What the handle shows and what the file holds after success.
    fn outcome(&self, stage: &Stage) -> (Vec<u8>, Vec<u8>) {
        let (mut shown, mut held) = (stage.shown.clone(), stage.held.clone().unwrap_or_default());
        match self.act {
            Act::Open(options) => {
                if options.truncate {
                    held.clear();
                }
                let size = held.len().max(options.size as usize);
                held.resize(size, 0);
                shown.clone_from(&held);
            }
            Act::Truncate(size) => {
                held.resize(size, 0);
                resize_shown(
                    &mut shown,
                    &held,
                    stage.held_size().min(self.file).min(size),
                );
            }
            Act::Remap => {
                let backed = self.file.min(held.len());
                resize_shown(&mut shown, &held, backed);
            }
            Act::Close => {}
        }
        (shown, held)
    }

    /// Does it, tries what it left, lets all go; what was wrong. Gives the calls, too.
    fn play(&self, plan: Plan) -> (Result<Vec<Call>, String>, bool) {
        let empty = World::memory();
        let mut stage = self.prepare();
        let directory = stage.scratch.path().to_owned();
        let before = World::of(&directory);
        let (result, report) = {
            let (path, handle) = (&stage.path, stage.handle.as_ref());
            injector::run(plan, || self.act(path, handle))
        };
        let mut wrong = Vec::new();
        let failing = report
            .calls
            .get(plan.nth.map_or(usize::MAX, |(nth, _)| nth));
        // What cannot be unmapped stays.
        let unmapped = failing.is_none_or(|call| call.number != libc::SYS_munmap);
        match result {
            Err(error) => {
                let changed = before.changed(&directory, unmapped);
                // A file that is emptied gets its size last, and without room to be had first it loses its contents before.
                let begun = &report.calls[..plan.nth.map_or(0, |(nth, _)| nth)];
                let is_emptied = self.options().truncate
                    && (plan.lacks_fallocate() || begun.iter().any(Call::zeroes_a_range));
                wrong.extend(
                    changed
                        .filter(|what| !(is_emptied && what.starts_with("the file has 0 ")))
                        .map(|what| format!("it failed, but {what}")),
                );
                if plan.nth.is_some_and(|(_, errno)| errno == libc::EINTR) {
                    wrong.push(format!("{error:?} for an interrupted call"));
                }
                if plan.nth.is_none() && plan.lacks.is_none() {
                    wrong.push(format!("{error:?} although nothing failed"));
                }
            }
            Ok(opened) => {
                (stage.shown, _) = self.succeeded(&mut stage, opened, &mut wrong);
            }
        }
        self.try_handle(&mut stage, &mut wrong);
        if report.closed_twice {
            wrong.push("a descriptor was closed twice".to_owned());
        }
        drop((stage.handle.take(), stage.view.take()));
        wrong.extend(World::left(&directory, unmapped.then_some(empty)));
        let calls = if wrong.is_empty() {
            Ok(report.calls)
        } else {
            Err(wrong.join("; "))
        };
        (calls, report.hit)
    }

    fn act(&self, path: &Path, handle: Option<&AHandle>) -> Result<Option<AHandle>, Error> {
        match self.act {
            Act::Open(options) => open(path, options).map(Some),
            Act::Truncate(size) => handle.unwrap().truncate(size as u64).map(|()| None),
            Act::Remap => handle.unwrap().remap().map(|_| None),
            Act::Close => handle.unwrap().close().map(|()| None),
        }
    }

    fn succeeded(
        &self,
        stage: &mut Stage,
        opened: Option<AHandle>,
        wrong: &mut Vec<String>,
    ) -> (Vec<u8>, Vec<u8>) {
        let (shown, held) = self.outcome(stage);
        if opened.is_some() {
            stage.handle = opened;
        }
        if matches!(self.act, Act::Close)
            && stage.handle.take().unwrap().close() != Err(Error::Closed)
        {
            wrong.push("ok, but the handle is not closed".to_owned());
        }
        match std::fs::read(&stage.path) {
            Ok(bytes) if bytes == held => {}
            Ok(bytes) => wrong.push(format!(
                "ok, but the file {}",
                world::difference(&held, &bytes)
            )),
            Err(error) => wrong.push(format!("ok, but the file: {error}")),
        }
        let named = std::fs::read_dir(stage.scratch.path()).unwrap().count();
        if named != 1 {
            wrong.push(format!("ok, but {named} files are there"));
        }
        (shown, held)
    }

    /// The handle shows what it should, and can be written where it might be before.
    fn try_handle(&self, stage: &mut Stage, wrong: &mut Vec<String>) {
        if let Some(handle) = stage
            .handle
            .as_ref()
            .filter(|_| self.options().access.reads())
        {
            if handle.position(Wait::Blocking) != Ok(stage.shown.len()) {
                wrong.push(format!("position is {:?}", handle.position(Wait::Blocking)));
            }
            // What another process cut off is not there to be read.
            let there = stage
                .shown
                .len()
                .min(std::fs::metadata(&stage.path).map_or(0, |file| file.len() as usize));
            match pread(handle, 0, there) {
                Ok(bytes) if bytes == stage.shown[..there] => {}
                Ok(bytes) => wrong.push(format!(
                    "the handle {}",
                    world::difference(&stage.shown[..there], &bytes)
                )),
                Err(error) => wrong.push(format!("pread is {error:?}")),
            }
        }
        if let Some(handle) = stage.handle.as_ref().filter(|_| self.writes()) {
            let written = pwrite(handle, 2, b"after");
            let reached =
                std::fs::read(&stage.path).is_ok_and(|bytes| bytes.get(2..7) == Some(b"after"));
            if written != Ok(()) || reached == self.is_private() {
                wrong.push(format!("pwrite is {written:?}, and in the file: {reached}"));
            }
        }
        if let Some(view) = &stage.view {
            let file = std::fs::metadata(&stage.path).unwrap().len() as usize;
            if self.file <= file
                && (view.byte(0) != pattern(1)[0] || view.intact(0, self.file) != Some(true))
            {
                wrong.push("the view is not what it was".to_owned());
            }
        }
    }

    /// Fails each call in turn on a system that lacks something. One line for each thing that was wrong.
    fn try_all(&self, lacks: Lack) -> (usize, Vec<String>) {
        let lacking = lacks.map(|(_, lacks, errno)| (lacks, errno));
        let here = lacks.map_or(String::new(), |(what, ..)| format!(" without {what}"));
        let plan = Plan {
            nth: None,
            lacks: lacking,
            ..Plan::default()
        };
        // A call that a signal interrupts is made again, which is one more: the shorter of two counts.
        let calls = match (self.play(plan).0, self.play(plan).0) {
            (Ok(first), Ok(second)) if second.len() < first.len() => second,
            (Ok(calls), Ok(_)) => calls,
            (Err(wrong), _) | (_, Err(wrong)) => {
                return (1, vec![format!("{}{here}: {wrong}", self.name)])
            }
        };
        let names: Vec<String> = calls.iter().map(Call::name).collect();
        eprintln!("{}{here}: {}", self.name, names.join(", "));
        let mut tried = 1;
        let mut wrong: Vec<(String, String)> = Vec::new();
        for (index, call) in calls.iter().enumerate() {
            for errno in call.errnos() {
                tried += 1;
                let plan = Plan {
                    nth: Some((index, errno)),
                    ..plan
                };
                let (played, hit) = self.play(plan);
                let said = played.err().or((!hit).then(|| "did not come".to_owned()));
                if let Some(said) = said {
                    let call = format!("{}{here}: call {index}, {}", self.name, call.name());
                    match wrong.last_mut() {
                        Some((last, errnos)) if *last == format!("{call}: {said}") => {
                            write!(errnos, " {errno}").unwrap();
                        }
                        _ => wrong.push((format!("{call}: {said}"), errno.to_string())),
                    }
                }
            }
        }
        let lines = wrong.into_iter();
        let wrong = lines
            .map(|(said, errnos)| format!("{said} (errno {errnos})"))
            .collect();
        (tried, wrong)
    }
}

impl Stage {
    fn held_size(&self) -> usize {
        self.held.as_ref().map_or(0, Vec::len)
    }
}

/// What a handle shows of the file at its new size: `own` bytes of it stay as they were shown.
fn resize_shown(shown: &mut Vec<u8>, held: &[u8], own: usize) {
    let mut next = held.to_vec();
    next[..own].copy_from_slice(&shown[..own]);
    *shown = next;
}

fn shared() -> Options {
    Options::new(Access::ReadWrite)
}

fn private() -> Options {
    Options {
        private: true,
        ..shared()
    }
}

fn reading() -> Options {
    Options::new(Access::Read)
}

fn opening(name: &'static str, file: usize, options: Options) -> Scenario {
    Scenario {
        name,
        file,
        handle: None,
        viewed: false,
        resized: None,
        act: Act::Open(options),
    }
}

fn with_handle(name: &'static str, options: Options, act: Act) -> Scenario {
    let file = 3 * page() + 100;
    Scenario {
        name,
        file,
        handle: Some(options),
        viewed: false,
        resized: None,
        act,
    }
}

fn viewed(scenario: Scenario) -> Scenario {
    Scenario {
        viewed: true,
        ..scenario
    }
}

fn resized(size: usize, scenario: Scenario) -> Scenario {
    Scenario {
        resized: Some(size),
        ..scenario
    }
}

/// Plays all of them, and those that make or size a file also where there is no unnamed file, or no `fallocate`.
fn nothing_happens_or_all(scenarios: &[Scenario]) {
    if !injector::is_possible() {
        return skip("seccomp_unotify(2) is not to be had");
    }
    warm_up();
    // Whatever else is needed once is had here, where nothing fails.
    for scenario in scenarios {
        let _ = scenario.play(Plan::default());
    }
    let mut tried = 0;
    let mut said = String::new();
    for scenario in scenarios {
        for lacks in scenario.lacking() {
            let (count, wrong) = scenario.try_all(lacks);
            tried += count;
            for line in wrong {
                writeln!(said, "{line}").unwrap();
            }
        }
    }
    eprintln!("{tried} failures tried");
    assert!(
        said.is_empty(),
        "{} of {tried} are wrong:\n{said}",
        said.lines().count()
    );
}

/// Starts the unmapping thread where nobody waits for its end: `play` waits for all threads that start in it, and this one
/// ends after ten idle seconds.
fn warm_up() {
    let scratch = Scratch::new();
    drop(open(&scratch.file(LARGE), shared()).unwrap());
}

type Lack = Option<(&'static str, fn(&Call) -> bool, i32)>;

impl Scenario {
    /// What systems may lack that matters here.
    fn lacking(&self) -> Vec<Lack> {
        let fallocate: fn(&Call) -> bool = |call| call.number == libc::SYS_fallocate;
        let (makes, sizes) = match self.act {
            Act::Open(options) => (options.create, options.size > 0),
            Act::Truncate(_) => (false, true),
            Act::Remap | Act::Close => (false, false),
        };
        let unnamed: fn(&Call) -> bool = Call::makes_an_unnamed_file;
        let lacks = [
            (true, None),
            (makes, Some(("unnamed files", unnamed, libc::EOPNOTSUPP))),
            (sizes, Some(("fallocate", fallocate, libc::EOPNOTSUPP))),
        ];
        let here = lacks.into_iter().filter(|(matters, _)| *matters);
        here.map(|(_, lack)| lack).collect()
    }
}

#[test]
fn an_open_that_fails_anywhere_has_done_nothing() {
    // Reading, growing, emptying, locking, private.
    in_its_own_process(|| {
        let size = LARGE as u64;
        let some = 3 * page() + 100;
        nothing_happens_or_all(&[
            opening("read", some, reading()),
            opening(
                "read, private",
                some,
                Options {
                    private: true,
                    ..reading()
                },
            ),
            opening("read_write", some, shared()),
            opening(
                "lock",
                some,
                Options {
                    lock: true,
                    ..shared()
                },
            ),
            opening(
                "populate",
                some,
                Options {
                    populate: true,
                    ..shared()
                },
            ),
            opening("private", some, private()),
            opening("size", some, Options { size, ..shared() }),
            opening("private, size", some, Options { size, ..private() }),
            opening(
                "truncate, larger",
                some,
                Options {
                    truncate: true,
                    size,
                    ..shared()
                },
            ),
            opening(
                "truncate, smaller",
                some,
                Options {
                    truncate: true,
                    size: 10,
                    ..shared()
                },
            ),
            opening(
                "create, truncate",
                some,
                Options {
                    create: true,
                    truncate: true,
                    size,
                    ..shared()
                },
            ),
        ]);
    });
}

#[test]
fn a_file_that_an_open_which_fails_anywhere_made_is_gone() {
    // No name, no room, no descriptor is left of it.
    in_its_own_process(|| {
        let options = Options {
            create: true,
            size: LARGE as u64,
            ..shared()
        };
        nothing_happens_or_all(&[
            opening("create", 0, options),
            opening(
                "create, private",
                0,
                Options {
                    private: true,
                    ..options
                },
            ),
            opening(
                "create, lock",
                0,
                Options {
                    lock: true,
                    ..options
                },
            ),
            opening(
                "create, truncate",
                0,
                Options {
                    truncate: true,
                    ..options
                },
            ),
        ]);
    });
}

#[test]
fn a_truncate_that_fails_anywhere_has_done_nothing() {
    // To more and to less, shared and private, alone and with a view, whatever another process made of the file.
    in_its_own_process(|| {
        let grow = Act::Truncate(LARGE);
        let shrink = Act::Truncate(page() + 10);
        let locked = Options {
            lock: true,
            ..shared()
        };
        nothing_happens_or_all(&[
            with_handle("grow", shared(), grow),
            with_handle(
                "grow within the page",
                shared(),
                Act::Truncate(3 * page() + 200),
            ),
            viewed(with_handle("grow, viewed", shared(), grow)),
            with_handle("grow, private", private(), grow),
            viewed(with_handle("grow, private, viewed", private(), grow)),
            with_handle("grow, locked", locked, grow),
            resized(2 * page(), with_handle("grow what was cut", shared(), grow)),
            resized(
                9 * page(),
                with_handle("grow what was appended to", shared(), grow),
            ),
            with_handle("shrink", shared(), shrink),
            viewed(with_handle("shrink, viewed", shared(), shrink)),
            with_handle("shrink, private", private(), shrink),
            viewed(with_handle("shrink, private, viewed", private(), shrink)),
            resized(
                9 * page(),
                with_handle("shrink what was appended to", shared(), shrink),
            ),
        ]);
    });
}

#[test]
fn a_remap_that_fails_anywhere_has_done_nothing() {
    // After another process made the file longer or shorter.
    in_its_own_process(|| {
        let (longer, shorter) = (9 * page() + 1, page() + 10);
        let locked = Options {
            lock: true,
            ..shared()
        };
        nothing_happens_or_all(&[
            with_handle("the same", shared(), Act::Remap),
            resized(longer, with_handle("longer", shared(), Act::Remap)),
            resized(longer, with_handle("longer, read", reading(), Act::Remap)),
            resized(
                longer,
                viewed(with_handle("longer, viewed", shared(), Act::Remap)),
            ),
            resized(
                longer,
                with_handle("longer, private", private(), Act::Remap),
            ),
            resized(
                longer,
                viewed(with_handle(
                    "longer, private, viewed",
                    private(),
                    Act::Remap,
                )),
            ),
            resized(longer, with_handle("longer, locked", locked, Act::Remap)),
            resized(shorter, with_handle("shorter", shared(), Act::Remap)),
            resized(
                shorter,
                viewed(with_handle("shorter, viewed", shared(), Act::Remap)),
            ),
            resized(
                shorter,
                with_handle("shorter, private", private(), Act::Remap),
            ),
        ]);
    });
}

#[test]
fn a_close_succeeds_whatever_fails_in_it() {
    // And closes once.
    in_its_own_process(|| {
        nothing_happens_or_all(&[
            with_handle("close", shared(), Act::Close),
            viewed(with_handle("close, viewed", shared(), Act::Close)),
            with_handle("close, private", private(), Act::Close),
            with_handle("close, read", reading(), Act::Close),
        ]);
    });
}

/// Another process does something before each call, and from there on each call in turn fails, or none: `stays` says what
/// is not as it must be. The other process's file is `theirs`.
fn stays(
    scenarios: &[Scenario],
    meanwhile: fn(&Path, theirs: &Path) -> usize,
    stays: fn(&Path, at: usize, failed: bool) -> Result<(), String>,
) {
    if !injector::is_possible() {
        return skip("seccomp_unotify(2) is not to be had");
    }
    warm_up();
    let mut said = String::new();
    for scenario in scenarios {
        for lacks in scenario.lacking() {
            let lacking = lacks.map(|(_, lacks, errno)| (lacks, errno));
            let plan = Plan {
                lacks: lacking,
                ..Plan::default()
            };
            let calls = scenario.play(plan).0.unwrap_or_default();
            for when in 0..calls.len() {
                for failing in when..=calls.len() {
                    let errno = calls
                        .get(failing)
                        .map(|call| call.errnos()[1.min(call.errnos().len() - 1)]);
                    let nth = errno.map(|errno| (failing, errno));
                    if let Err(wrong) =
                        scenario.play_beside(Plan { nth, ..plan }, when, meanwhile, stays)
                    {
                        let (before, name) = (
                            calls[when].name(),
                            calls.get(failing).map_or("none".to_owned(), Call::name),
                        );
                        writeln!(
                            said,
                            "{}: before {when}, {before}; {failing}, {name} fails: {wrong}",
                            scenario.name
                        )
                        .unwrap();
                    }
                }
            }
        }
    }
    assert!(
        said.is_empty(),
        "{} are wrong:\n{said}",
        said.lines().count()
    );
}

impl Scenario {
    fn play_beside(
        &self,
        plan: Plan,
        when: usize,
        meanwhile: fn(&Path, &Path) -> usize,
        stays: fn(&Path, usize, bool) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut stage = self.prepare();
        let elsewhere = tempfile::tempdir_in(stage.scratch.path().parent().unwrap()).unwrap();
        let theirs = elsewhere.path().join("theirs");
        std::fs::write(&theirs, THEIRS).unwrap();
        let at = AtomicUsize::new(usize::MAX);
        let act = || at.store(meanwhile(&stage.path, &theirs), Ordering::SeqCst);
        let (path, handle) = (&stage.path, stage.handle.as_ref());
        let plan = Plan {
            meanwhile: Some((when, &act)),
            ..plan
        };
        let (result, _) = injector::run(plan, || self.act(path, handle));
        let failed = result.is_err();
        drop((result, stage.handle.take(), stage.view.take()));
        match at.into_inner() {
            // The calls of before ended the act.
            usize::MAX => Ok(()),
            at => stays(&stage.path, at, failed),
        }
    }
}

const THEIRS: &[u8] = b"what another process wrote";

#[test]
fn what_another_process_renames_to_the_path_during_an_open_stays() {
    // Whether the open makes a file or fails: the name is never taken from the other's file.
    in_its_own_process(|| {
        let options = Options {
            create: true,
            size: LARGE as u64,
            ..shared()
        };
        let rename = |path: &Path, theirs: &Path| {
            std::fs::rename(theirs, path).unwrap();
            0
        };
        stays(
            &[opening("create", 0, options)],
            rename,
            |path, _, failed| {
                let bytes = std::fs::read(path).map_err(|error| format!("their file: {error}"))?;
                let whole = !failed || bytes.len() == THEIRS.len();
                if bytes.starts_with(THEIRS) && whole {
                    return Ok(());
                }
                Err(format!("their file has {} bytes", bytes.len()))
            },
        );
    });
}

#[test]
fn what_another_process_appends_during_a_growth_stays() {
    // Whether the growth succeeds or fails.
    in_its_own_process(|| {
        let grow = Act::Truncate(LARGE);
        let size = LARGE as u64;
        let append = |path: &Path, _: &Path| {
            let mut file = std::fs::OpenOptions::new().append(true).open(path).unwrap();
            file.write_all(THEIRS).unwrap();
            file.stream_position().unwrap() as usize - THEIRS.len()
        };
        let scenarios = [
            opening("size", 3 * page() + 100, Options { size, ..shared() }),
            opening(
                "size, private",
                3 * page() + 100,
                Options { size, ..private() },
            ),
            with_handle("grow", shared(), grow),
            viewed(with_handle("grow, viewed", shared(), grow)),
            with_handle("grow, private", private(), grow),
            resized(2 * page(), with_handle("grow what was cut", shared(), grow)),
        ];
        stays(&scenarios, append, |path, at, _| {
            let bytes = std::fs::read(path).unwrap();
            match bytes.get(at..at + THEIRS.len()) {
                Some(THEIRS) => Ok(()),
                Some(_) => Err(format!("what was appended at {at} is not there")),
                None => Err(format!(
                    "what was appended at {at} was cut: {} bytes are left",
                    bytes.len()
                )),
            }
        });
    });
}
