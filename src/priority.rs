//! Which threads go first when there are not cores enough.
//!
//! Lookups are worth microseconds, and all else can wait for some: a thread of the write side that happens to
//! run on a lookup worker's core makes a lookup wait until its turn is over, which is milliseconds. So the
//! threads of the write side give way: they get what the lookups leave, and a share that keeps them going
//! where these take all.
//!
//! It takes no right to be less important, and none is needed here.

use std::io;

/// How much nicer the write side is than the lookups: where both want one core, it has a tenth of it.
const NICENESS: i32 = 10;

/// Makes the calling thread, and those that it starts from now on, give way to all others. To be called once
/// for each: every call adds to it.
///
/// # Errors
/// When the system does not allow it, as a filter of system calls may. Then all threads are alike, and nothing
/// else changes.
pub fn give_way() -> io::Result<()> {
    rustix::process::nice(NICENESS)?;
    Ok(())
}
