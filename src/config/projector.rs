//! The `[projector]` section.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use jiff::SignedDuration;
use serde::Deserialize;

use crate::http::settings::Listen;
use crate::projector::WATERMARK_INTERVAL;

/// The port of a projector's listener unless the settings name another one: not that of a sidecar, which may
/// run on the same host.
pub const PROJECTOR_PORT: u16 = 8183;
/// The shortest silence after which a standby may take over: two signs of life must fit in.
pub const TAKEOVER_AFTER_MIN: Duration = Duration::from_secs(10);
/// The longest one; a duration above it is taken for a typing mistake.
pub const TAKEOVER_AFTER_MAX: Duration = Duration::from_secs(60 * 60);
const _: () = assert!(
    TAKEOVER_AFTER_MIN.as_millis() >= 2 * WATERMARK_INTERVAL.as_millis(),
    "an active projector that is a little late is not dead"
);

/// The `[projector]` section: what `portcullis project` is told.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct ProjectorSettings {
    /// Where it answers how it is.
    /// At least one place, none of them twice but for any port 0; by default `127.0.0.1:8183`. It has no
    /// socket besides, takes nothing and shows no list, so that any address may be named.
    pub listen: Vec<Listen>,
    /// The silence of the active projector after which a standby takes over, but for jitter.
    pub takeover_after: TakeoverAfter,
}

impl Default for ProjectorSettings {
    fn default() -> Self {
        let listen = Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], PROJECTOR_PORT)));
        Self { listen: vec![listen], takeover_after: TakeoverAfter::default() }
    }
}

/// A silence after which a projector is taken for dead, from [`TAKEOVER_AFTER_MIN`] to
/// [`TAKEOVER_AFTER_MAX`]; by default 15 s.
///
/// ```
/// use std::time::Duration;
///
/// use portcullis::config::TakeoverAfter;
///
/// let takeover_after: TakeoverAfter = "1m 30s".parse()?;
/// assert_eq!(takeover_after.duration(), Duration::from_secs(90));
/// assert_eq!("PT15S".parse(), Ok(TakeoverAfter::default()), "ISO 8601 will do, too");
/// assert!("5s".parse::<TakeoverAfter>().is_err(), "a healthy projector may be silent for as long");
/// # Ok::<(), portcullis::config::TakeoverAfterError>(())
/// ```
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
pub struct TakeoverAfter(Duration);

impl TakeoverAfter {
    /// How long it is.
    pub const fn duration(self) -> Duration {
        self.0
    }
}

impl Default for TakeoverAfter {
    fn default() -> Self {
        Self(Duration::from_secs(15))
    }
}

impl FromStr for TakeoverAfter {
    type Err = TakeoverAfterError;

    fn from_str(text: &str) -> Result<Self, TakeoverAfterError> {
        let error = || TakeoverAfterError(text.to_owned());
        let duration: SignedDuration = text.parse().map_err(|_| error())?;
        let duration = Duration::try_from(duration).map_err(|_| error())?;
        let fits = (TAKEOVER_AFTER_MIN..=TAKEOVER_AFTER_MAX).contains(&duration);
        fits.then_some(Self(duration)).ok_or_else(error)
    }
}

impl TryFrom<String> for TakeoverAfter {
    type Error = TakeoverAfterError;

    fn try_from(text: String) -> Result<Self, TakeoverAfterError> {
        text.parse()
    }
}

/// A text that is no such silence.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "`{0}` is no duration from {min}s to {max}s: write it like 15s or 1m 30s",
    min = TAKEOVER_AFTER_MIN.as_secs(),
    max = TAKEOVER_AFTER_MAX.as_secs()
)]
pub struct TakeoverAfterError(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_is_well_above_that_of_a_healthy_projector() {
        for (text, seconds) in [("10s", 10), ("15 seconds", 15), ("PT20S", 20), ("1h", 3600), ("2m", 120)] {
            assert_eq!(text.parse(), Ok(TakeoverAfter(Duration::from_secs(seconds))), "{text}");
        }
        for text in ["", "15", "soon", "9.999s", "0s", "-15s", "1h 1s", "99999999999h", "1 day"] {
            let error = text.parse::<TakeoverAfter>().expect_err(text).to_string();
            assert!(error.starts_with(&format!("`{text}` is no duration from 10s to 3600s")), "{error}");
        }
    }
}
