//! A disk that forgets what was not synced, fails when told to, and can be held in the middle of a sync.
#![allow(dead_code, reason = "each test target uses its own part")]

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use redb::StorageBackend;

/// What a write may be torn into: whole sectors.
const SECTOR_BYTES: usize = 512;

/// Which operations of a disk fail, counted from 0 over all writes, syncs and changes of length.
#[derive(Clone, Copy, Debug, Default)]
pub enum Fails {
    #[default]
    Never,
    /// This operation and everything after it: the power is gone.
    From(usize),
    /// This operation only.
    Once(usize),
    /// The next sync only.
    NextSync,
    /// The next read only.
    NextRead,
    /// Everything, reads as well, until it is told otherwise.
    Everything,
}

/// What a power cut leaves of the operations that were not synced.
#[derive(Clone, Copy, Debug)]
pub enum Cut {
    /// None of them.
    Synced,
    /// The first of them, up to a number drawn from this seed.
    Prefix(u64),
    /// Some of them, drawn from this seed, and of some only the sectors at the beginning or at the end.
    Torn(u64),
}

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

impl Change {
    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Self::Length(length) => image.resize(*length, 0),
            Self::Write(at, bytes) => {
                let end = at + bytes.len();
                image.resize(image.len().max(end), 0);
                image[*at..end].copy_from_slice(bytes);
            }
        }
    }

    fn torn(&self, random: &mut fastrand::Rng) -> Self {
        match self {
            Self::Write(at, bytes) if bytes.len() > SECTOR_BYTES => {
                let cut = SECTOR_BYTES * random.usize(1..bytes.len().div_ceil(SECTOR_BYTES));
                let (head, tail) = bytes.split_at(cut);
                if random.bool() {
                    Self::Write(*at, head.to_vec())
                } else {
                    Self::Write(at + cut, tail.to_vec())
                }
            }
            whole => whole.clone(),
        }
    }
}

#[derive(Debug, Default)]
struct Inner {
    /// What is read: everything that was written.
    seen: Vec<u8>,
    /// What a power cut leaves for certain.
    synced: Vec<u8>,
    unsynced: Vec<Change>,
    fails: Fails,
    operations: usize,
    syncs: usize,
    held: bool,
}

impl Inner {
    /// Counts one operation that may fail.
    fn step(&mut self) -> io::Result<()> {
        let operation = self.operations;
        self.operations += 1;
        let failed = match self.fails {
            Fails::From(first) => operation >= first,
            Fails::Once(only) => operation == only,
            Fails::Never | Fails::NextSync | Fails::NextRead => false,
            Fails::Everything => true,
        };
        if failed { Err(io::Error::other("the disk failed on purpose")) } else { Ok(()) }
    }

    fn change(&mut self, change: Change) -> io::Result<()> {
        let outcome = self.step();
        let gone = match self.fails {
            Fails::From(first) => self.operations > first + 1,
            Fails::Everything => true,
            _ => false,
        };
        if !gone {
            // The operation that fails may have happened, wholly or in part.
            self.unsynced.push(change.clone());
            change.apply(&mut self.seen);
        }
        outcome
    }

    fn sync(&mut self) -> io::Result<()> {
        let asked = matches!(self.fails, Fails::NextSync);
        let outcome = if asked { Err(io::Error::other("the sync failed on purpose")) } else { self.step() };
        match (&outcome, self.fails) {
            (Ok(()), _) => {
                self.syncs += 1;
                for change in std::mem::take(&mut self.unsynced) {
                    change.apply(&mut self.synced);
                }
            }
            (Err(_), Fails::From(_)) => {}
            // The way of Linux: what could not be written is counted as written, and still read.
            (Err(_), _) => self.unsynced.clear(),
        }
        if asked {
            self.fails = Fails::Never;
        }
        outcome
    }
}

/// The disk. Its clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct Disk(Arc<(Mutex<Inner>, Condvar)>);

impl Disk {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.0.lock().expect("no operation of the disk panics")
    }

    fn holding(image: Vec<u8>) -> Self {
        let disk = Self::default();
        disk.inner().synced = image.clone();
        disk.inner().seen = image;
        disk
    }

    /// From now on these operations fail.
    pub fn fail(&self, fails: Fails) {
        self.inner().fails = fails;
    }

    /// How many writes, syncs and changes of length there were.
    pub fn operations(&self) -> usize {
        self.inner().operations
    }

    /// How many syncs succeeded.
    pub fn syncs(&self) -> usize {
        self.inner().syncs
    }

    /// Makes every sync wait.
    pub fn hold(&self) {
        self.inner().held = true;
    }

    /// Lets the syncs go on.
    pub fn release(&self) {
        self.inner().held = false;
        self.0.1.notify_all();
    }

    /// The disk as another machine finds it after a power cut.
    pub fn after(&self, cut: Cut) -> Self {
        let inner = self.inner();
        let mut image = inner.synced.clone();
        match cut {
            Cut::Synced => {}
            Cut::Prefix(seed) => {
                let kept = fastrand::Rng::with_seed(seed).usize(0..=inner.unsynced.len());
                inner.unsynced.iter().take(kept).for_each(|change| change.apply(&mut image));
            }
            Cut::Torn(seed) => {
                let mut random = fastrand::Rng::with_seed(seed);
                for change in &inner.unsynced {
                    match random.u8(0..4) {
                        0 => {}
                        1 => change.torn(&mut random).apply(&mut image),
                        _ => change.apply(&mut image),
                    }
                }
            }
        }
        Self::holding(image)
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.inner().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut inner = self.inner();
        if matches!(inner.fails, Fails::NextRead | Fails::Everything) {
            if matches!(inner.fails, Fails::NextRead) {
                inner.fails = Fails::Never;
            }
            return Err(io::Error::other("the read failed on purpose"));
        }
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        let bytes = inner.seen.get(at..at + out.len());
        out.copy_from_slice(bytes.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner().change(Change::Length(usize::try_from(len).map_err(io::Error::other)?))
    }

    fn sync_data(&self) -> io::Result<()> {
        let held = self.0.1.wait_while(self.inner(), |inner| inner.held);
        held.expect("no operation of the disk panics").sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        self.inner().change(Change::Write(at, data.to_vec()))
    }
}
