//! The options of an open, and the hints of `advise`.

/// What a handle may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read only; the memory is mapped read-only too.
    Read,
    /// Write only, as far as the handle goes; the hardware needs both.
    Write,
    /// Both.
    ReadWrite,
}

impl Access {
    /// Whether reading through the handle is permitted.
    pub fn reads(self) -> bool {
        self != Access::Write
    }

    /// Whether writing through the handle is permitted.
    pub fn writes(self) -> bool {
        self != Access::Read
    }
}

/// The part of a file that is mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Window {
    /// Where in the file it begins, in bytes.
    pub offset: u64,
    /// How many bytes it has at most; `None`: it ends where the file does.
    pub length: Option<u64>,
}

impl Window {
    /// Whether it is all of the file, whatever its size.
    pub fn is_whole(self) -> bool {
        self == Window::default()
    }

    /// How many bytes it has of a file of `size` bytes. `None` if there is nothing left.
    pub fn length_in(self, size: u64) -> Option<u64> {
        let rest = size.saturating_sub(self.offset);
        let length = self.length.unwrap_or(rest).min(rest);
        (length > 0).then_some(length)
    }
}

/// The options of an open.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// What the handle may do.
    pub access: Access,
    /// Copy-on-write: changes stay in this mapping and never reach the file.
    pub private: bool,
    /// Make the file if it does not exist.
    pub create: bool,
    /// Empty the file first.
    pub truncate: bool,
    /// Grow the file to this size, in bytes, if it is smaller.
    pub size: u64,
    /// Lock the pages in memory. Failing to is not an error.
    pub lock: bool,
    /// Prefault the pages.
    pub populate: bool,
    /// Ask the system not to cache the file.
    pub nocache: bool,
    /// The permissions of a file that is made, under the umask.
    pub permissions: u32,
    /// A read past the end of the mapping, but not of the file or its window, makes the mapping longer first.
    pub follow: bool,
    /// Map this part of the file only.
    pub window: Window,
    /// Keep address space for the mapping to grow into: so many bytes in all, at least.
    pub reserve: u64,
}

impl Options {
    /// A shared mapping of an existing file, without extras.
    pub fn new(access: Access) -> Options {
        Options {
            access,
            private: false,
            create: false,
            truncate: false,
            size: 0,
            lock: false,
            populate: false,
            nocache: false,
            permissions: 0o644,
            follow: false,
            window: Window::default(),
            reserve: 0,
        }
    }
}

/// A hint about future accesses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    /// No particular order.
    Normal,
    /// At random: no read-ahead.
    Random,
    /// In order: more read-ahead.
    Sequential,
    /// Soon: read ahead now.
    WillNeed,
    /// Not soon: the pages may be dropped.
    DontNeed,
    /// In huge pages.
    HugePage,
    /// In none.
    NoHugePage,
    /// In huge pages, now.
    Collapse,
    /// Soon, to read: fault all pages in now.
    PopulateRead,
    /// Soon, to write: make all pages writable now.
    PopulateWrite,
    /// Not soon: these pages first, where memory is wanted.
    Cold,
    /// Not soon: write the pages back and drop them now.
    PageOut,
    /// Not in core dumps.
    DontDump,
    /// In core dumps.
    DoDump,
    /// Not in child processes.
    DontFork,
    /// In child processes.
    DoFork,
}

/// The settings that hints change for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// How far the kernel reads ahead.
    ReadAhead,
    /// Whether it uses huge pages.
    HugePages,
    /// Whether core dumps have the pages.
    Dump,
    /// Whether child processes do.
    Fork,
}

impl Setting {
    /// How many there are.
    pub const COUNT: usize = 4;
}

impl Hint {
    /// The setting that the hint changes for good, if it does: a mapping that replaces this one is to have it too.
    pub fn setting(self) -> Option<Setting> {
        match self {
            Hint::Normal | Hint::Random | Hint::Sequential => Some(Setting::ReadAhead),
            Hint::HugePage | Hint::NoHugePage => Some(Setting::HugePages),
            Hint::DontDump | Hint::DoDump => Some(Setting::Dump),
            Hint::DontFork | Hint::DoFork => Some(Setting::Fork),
            Hint::WillNeed | Hint::DontNeed | Hint::Cold | Hint::PageOut => None,
            Hint::Collapse | Hint::PopulateRead | Hint::PopulateWrite => None,
        }
    }
}
