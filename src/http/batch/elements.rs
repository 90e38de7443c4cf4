//! A batch as a JSON array of texts.
//!
//! `serde_json` reads an array in one go, which would keep the other connections of the thread waiting. So
//! the array is taken apart here, and what is more than a plain text between quotes is left to
//! `serde_json`: an element with an escape, one that is no text, and the words for an array that is none.

use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::{Addresses, Progress, SLICE_ADDRESSES, SLICE_BYTES, address, too_many};
use crate::address::Address;
use crate::http::answer::Problem;
use crate::http::codes;

/// The elements of an array that are still to be read.
pub(super) struct Elements<'a> {
    body: &'a [u8],
    rest: &'a [u8],
    /// How many elements were read.
    read: usize,
    addresses_max: usize,
    /// The first element that is no address. It is told only if the whole is an array, and not too long a
    /// one.
    wrong: Option<Problem>,
}

/// One element as it stands there.
enum Element<'a> {
    /// What is between the quotes of a text without escapes.
    Plain(&'a [u8]),
    /// Any other value.
    Other(&'a RawValue),
}

/// An array that is none.
struct Malformed;

impl<'a> Elements<'a> {
    pub(super) const fn new(body: &'a [u8], addresses_max: usize) -> Self {
        Self { body, rest: body, read: 0, addresses_max, wrong: None }
    }

    /// The next element; none behind the last one.
    fn next(&mut self) -> Result<Option<Element<'a>>, Malformed> {
        let is_first = self.read == 0;
        match self.mark()? {
            b'[' if is_first => {}
            b',' if !is_first => {}
            b']' if !is_first => return self.end(),
            _ => return Err(Malformed),
        }
        self.rest = without_blanks(self.rest);
        if is_first && let Some(rest) = self.rest.strip_prefix(b"]") {
            self.rest = rest;
            return self.end();
        }
        self.read += 1;
        self.element().map(Some)
    }

    /// The byte that stands between two elements, or before the first one, or behind the last one.
    fn mark(&mut self) -> Result<u8, Malformed> {
        let (mark, rest) = without_blanks(self.rest).split_first().ok_or(Malformed)?;
        self.rest = rest;
        Ok(*mark)
    }

    /// Behind an array may stand nothing but blanks.
    fn end(&self) -> Result<Option<Element<'a>>, Malformed> {
        if without_blanks(self.rest).is_empty() { Ok(None) } else { Err(Malformed) }
    }

    fn element(&mut self) -> Result<Element<'a>, Malformed> {
        if let Some(text) = self.rest.strip_prefix(b"\"")
            && let Some(end) = text.iter().position(|byte| matches!(byte, b'"' | b'\\' | ..b' '))
            && let (plain, [b'"', rest @ ..]) = text.split_at(end)
        {
            self.rest = rest;
            return Ok(Element::Plain(plain));
        }
        let mut values = serde_json::Deserializer::from_slice(self.rest).into_iter::<&RawValue>();
        let Some(Ok(value)) = values.next() else { return Err(Malformed) };
        self.rest = self.rest.get(values.byte_offset()..).unwrap_or_default();
        Ok(Element::Other(value))
    }

    /// The problem of an array that is none. It is read once more from the beginning, to find the words for
    /// it.
    fn malformed(&self) -> Problem {
        let read = serde_json::from_slice::<Vec<IgnoredAny>>(self.body);
        let error = read.err().map_or_else(String::new, |error| error.to_string());
        let hint = r#"write it like ["203.0.113.7","2001:db8::7"]"#;
        Problem::new(codes::BODY_INVALID, format!("the body is no JSON array: {error}"), hint)
    }
}

impl Addresses for Elements<'_> {
    /// An element that is no address ends nothing yet, because what follows may be worse.
    fn read(&mut self, slice: &mut Vec<Address>) -> Result<Progress, Problem> {
        let slice_ends = self.rest.len().saturating_sub(SLICE_BYTES);
        for _ in 0..SLICE_ADDRESSES {
            if self.rest.len() < slice_ends {
                break;
            }
            let Some(element) = self.next().map_err(|Malformed| self.malformed())? else {
                return self.wrong.take().map_or(Ok(Progress::End), Err);
            };
            if self.read > self.addresses_max {
                return Err(too_many(self.addresses_max));
            }
            if self.wrong.is_none() {
                match element.address() {
                    Ok(address) => slice.push(address),
                    Err(problem) => self.wrong = Some(problem.index(self.read - 1)),
                }
            }
        }
        Ok(Progress::More)
    }
}

impl Element<'_> {
    fn address(&self) -> Result<Address, Problem> {
        match self {
            Self::Plain(text) => address(text),
            Self::Other(value) => {
                let text: String = serde_json::from_str(value.get()).map_err(|_| {
                    let message = "the element is no string";
                    Problem::new(codes::ADDRESS_INVALID, message, "write addresses as JSON strings")
                })?;
                Ok(text.parse::<Address>()?)
            }
        }
    }
}

/// The text without the blanks before it: those of JSON, which are not all that there are.
fn without_blanks(text: &[u8]) -> &[u8] {
    let begin = text.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
    text.get(begin.unwrap_or(text.len())..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the body is as a whole to `serde_json`: the texts of its elements, none in the place of one
    /// that is no text; or why it is no array.
    fn as_serde_reads(body: &[u8]) -> Result<Vec<Option<String>>, String> {
        let values: Vec<&RawValue> = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        Ok(values.iter().map(|value| serde_json::from_str(value.get()).ok()).collect())
    }

    /// The same as it is read here.
    fn as_read(body: &[u8]) -> Result<Vec<Option<String>>, String> {
        let (mut elements, mut texts) = (Elements::new(body, usize::MAX), vec![]);
        loop {
            match elements.next() {
                Ok(Some(Element::Plain(text))) => texts.push(String::from_utf8(text.to_vec()).ok()),
                Ok(Some(Element::Other(value))) => texts.push(serde_json::from_str(value.get()).ok()),
                Ok(None) => return Ok(texts),
                Err(Malformed) => {
                    let read = serde_json::from_slice::<Vec<IgnoredAny>>(body);
                    return Err(read.expect_err("what is refused here is refused by serde").to_string());
                }
            }
        }
    }

    fn element() -> impl Strategy<Value = String> {
        let of = |values: &'static [&'static str]| prop::sample::select(values).prop_map(str::to_owned);
        let texts = of(&[
            r#""192.0.2.1""#,
            r#""2001:db8::1""#,
            r#""""#,
            r#""\u0031.2.3.4""#,
            r#""\ud800""#,
            r#"" é""#,
        ]);
        let others = of(&["1", "-1.5e3", "null", "true", "[]", r#"[1,["a]"]]"#, r#"{"a":"]"}"#]);
        let wrong =
            of(&["", "nul", "01", "1.", "\"", r#""a"#, r#""\x""#, "\"\n\"", "]", "[", "{", "\x0c", "+"]);
        prop_oneof![12 => texts, 3 => others, 1 => wrong]
    }

    fn blanks() -> impl Strategy<Value = String> {
        prop_oneof![8 => Just(String::new()), 3 => "[ \t\r\n]{1,3}", 1 => Just("\x0c".to_owned())]
    }

    fn body() -> impl Strategy<Value = String> {
        let separator = prop_oneof![20 => Just(","), 1 => Just(""), 1 => Just(",,"), 1 => Just("]")];
        let elements = prop::collection::vec((blanks(), element(), blanks(), separator), 0..5);
        let close =
            prop_oneof![8 => Just("]"), 1 => Just(""), 1 => Just(",]"), 1 => Just("] x"), 1 => Just("]]")];
        (blanks(), elements, blanks(), close, blanks()).prop_map(
            |(before, elements, inside, close, behind)| {
                let mut body = format!("{before}[{inside}");
                for (at, (before, element, behind, separator)) in elements.iter().enumerate() {
                    let separator = if at == 0 { "" } else { separator };
                    body.push_str(&format!("{separator}{before}{element}{behind}"));
                }
                format!("{body}{close}{behind}")
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8192))]

        #[test]
        fn an_array_is_what_serde_takes_for_one(body in body()) {
            prop_assert_eq!(as_read(body.as_bytes()), as_serde_reads(body.as_bytes()));
        }
    }
}
