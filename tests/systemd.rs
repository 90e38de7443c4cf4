//! The unit that we ship, as systemd itself reads it.

use std::fs;
use std::path::Path;
use std::process::Command;

#[test]
#[ignore = "needs systemd-analyze (apt-get install systemd)"]
fn systemd_accepts_the_unit() {
    let folder = tempfile::tempdir().expect("a folder");
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/portcullis.service");
    let text = fs::read_to_string(unit).expect("the unit is there");
    // The program is not installed where a test runs, and systemd looks whether it is there.
    let installed = text.replace("/usr/bin/portcullis", env!("CARGO_BIN_EXE_portcullis"));
    assert_ne!(text, installed, "the unit starts the program");
    let copy = folder.path().join("portcullis.service");
    fs::write(&copy, installed).expect("a copy");
    let output = Command::new("systemd-analyze").arg("verify").arg(&copy).output();
    let output = output.expect("systemd-analyze runs (apt-get install systemd)");
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaints.is_empty(), "{complaints}");
}
