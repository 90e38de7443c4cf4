use crate::report::Report;
pub(crate) fn draw(_: &Report) -> Option<String> {
    None
}
