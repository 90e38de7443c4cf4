//! Where results go: standard output, written in large pieces, and quietly given up when nobody reads on.

use std::fmt::Display;
use std::io::{self, BufWriter, StdoutLock, Write};

use crate::cli::failure::Failure;

/// How results are written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

impl From<bool> for Format {
    /// What the flag `--json` asks for.
    fn from(json: bool) -> Self {
        if json { Self::Json } else { Self::Text }
    }
}

/// Standard output. Once its reader has gone (`| head`) all further writing is taken as done, so that a
/// verb ends with the exit code that it would have had.
#[derive(Debug)]
pub struct Output {
    writer: BufWriter<StdoutLock<'static>>,
    gone: bool,
}

impl Output {
    /// Standard output, for this verb alone.
    pub fn lock() -> Self {
        Self { writer: BufWriter::new(io::stdout().lock()), gone: false }
    }

    /// Writes one line.
    ///
    /// # Errors
    /// When it can't be written for another reason than that nobody reads on.
    pub fn line(&mut self, line: impl Display) -> Result<(), Failure> {
        let written = writeln!(self.writer, "{line}");
        self.settle(written).map_err(|error| unwritable(&error))
    }

    /// Writes bytes as they are.
    ///
    /// # Errors
    /// As [`Output::line`].
    pub fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = self.writer.write_all(bytes);
        self.settle(written)
    }

    /// Writes what is still held back.
    ///
    /// # Errors
    /// As [`Output::line`].
    pub fn flush(&mut self) -> Result<(), Failure> {
        let written = self.writer.flush();
        self.settle(written).map_err(|error| unwritable(&error))
    }

    /// Whether nobody reads on.
    pub const fn is_gone(&self) -> bool {
        self.gone
    }

    fn settle(&mut self, written: io::Result<()>) -> io::Result<()> {
        match written {
            Err(error) if self.gone || error.kind() == io::ErrorKind::BrokenPipe => {
                self.gone = true;
                Ok(())
            }
            written => written,
        }
    }
}

/// The failure that standard output can't be written.
pub fn unwritable(error: &io::Error) -> Failure {
    Failure::unavailable(format!("the result cannot be written: {error}"))
}

/// Writes a line for people to standard error. If even that fails there is nobody left to tell.
pub fn note(line: &str) {
    let _ = writeln!(io::stderr().lock(), "portcullis: {line}");
}

/// A number with its noun.
pub fn counted(number: u128, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}
