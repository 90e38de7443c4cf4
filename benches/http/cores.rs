//! Which core what runs on. Where the scheduler happens to put two threads that wake each other makes more
//! difference than what they do, so that nothing is left to it.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The cores of the bench; the same one twice where there is only one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cores {
    pub(crate) client: usize,
    pub(crate) server: usize,
}

impl Cores {
    /// The first two that this process may use.
    pub(crate) fn find() -> Self {
        let allowed = sched_getaffinity(Pid::from_raw(0)).expect("Linux tells it");
        let mut cores = (0..CpuSet::count()).filter(|core| allowed.is_set(*core).unwrap_or_default());
        let client = cores.next().expect("this runs on one");
        Self { client, server: cores.next().unwrap_or(client) }
    }
}

/// Binds a thread to one core, and all that it starts from now on; 0 is the calling thread.
pub(crate) fn bind(thread: Pid, core: usize) {
    let mut cores = CpuSet::new();
    cores.set(core).expect("it was found in such a set");
    sched_setaffinity(thread, &cores).expect("it may be used");
}
