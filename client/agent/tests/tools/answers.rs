//! What the handlers of other updaters make of what these say: their own words, out of a program
//! that stands for them. The updaters themselves are in `bundles`.

use std::fs;

use tidings_agent::handler::Answer;

use super::{
    PATH, Place, Tool,
    bundles::{may_be_well_later, refused},
    common::write_program,
};

/// Two slots in files, and programs that say what is in `says` and fail.
fn place(conf: &str, text: &str, programs: &[(&str, &str)]) -> Place {
    let place = Place::new(conf, text, "A");
    let here = place.path().display().to_string();
    fs::create_dir(place.path().join("bin")).unwrap();
    for (name, text) in programs {
        let program = format!("#!/bin/sh\n{}\n", text.replace("HERE", &here));
        write_program(&place.path().join("bin").join(name), &program);
    }
    let slots = format!("SLOT_A={here}/a\nSLOT_B={here}/b\n");
    fs::write(place.path().join("etc/slots.conf"), slots).unwrap();
    for slot in ["a", "b"] {
        fs::write(place.path().join(slot), [0; 4_096]).unwrap();
    }
    fs::write(place.path().join("bundle"), "a bundle").unwrap();
    place
}

fn stage(place: &Place, format: &str, says: &str) -> Answer {
    fs::write(place.path().join("says"), says).unwrap();
    let properties = [
        ("T_RESULT", "0".repeat(64)),
        ("T_X_RESULT_SIZE", "4096".into()),
    ];
    let properties: Vec<(&str, &str)> = properties.iter().map(|(k, v)| (*k, v.as_str())).collect();
    let path = format!("{}/bin:{PATH}", place.path().display());
    let tool = Tool::new(place, format, "bundle", &properties);
    tool.call("stage", &path).unwrap()
}

#[test]
fn rauc_is_asked_again_unless_it_speaks_of_the_bundle() {
    let rauc = "case $1 in status) cat HERE/status ;; *) cat HERE/says; exit 1 ;; esac";
    let place = place("rauc.conf", "", &[("rauc", rauc), ("dbus-send", "")]);
    let status = place.path().join("status");
    fs::write(&status, "RAUC_SYSTEM_BOOTED_BOOTNAME='A'\n").unwrap();
    let said = |why: &str| {
        let says = format!("installing\nLastError: {why}\nInstalling `/proc/7/fd/3` failed\n");
        stage(&place, "rauc", &says)
    };
    for why in [
        "signature verification failed: Verify error: self-signed certificate",
        "signature verification failed: error:1700009E:CMS routines::verification failure",
        "Invalid bundle format: Signature size (11465388429428294914) exceeds bundle size",
        "Installation error: Compatible mismatch: Expected 'x1' but bundle manifest has 'x2'",
        // Of 1.13 and newer.
        "Compatible mismatch: Expected 'x1' but bundle manifest has 'x2'",
        "Version mismatch: Expected at least '2' but bundle manifest has '1'",
        "Installation error: No target slot for class data of image rootfs.img found",
        "Bundle format 'plain' not allowed",
    ] {
        refused(&said(why), why);
    }
    for why in [
        "Installation error: Failed updating slot rootfs.1: Failed splicing data: Error writing to \
         file descriptor: No space left on device",
        "Installation error: Error while writing status file: Failed to create file: Read-only \
         file system",
        "Failed mounting bundle: Failed to open /dev/mapper/control: No such file or directory",
        "Invalid bundle format: Failed to seek to end of bundle: Error seeking in file: \
         Input/output error",
        "Pre-install handler error: Compatible mismatch: is what a handler says",
        // The clock, and not the bundle.
        "signature verification failed: Verify error: certificate is not yet valid",
    ] {
        may_be_well_later(&said(why), why);
    }
    let vanished = "installing\nRAUC service disappeared\nD-Bus error while installing\n";
    may_be_well_later(&stage(&place, "rauc", vanished), "D-Bus error");
    may_be_well_later(&stage(&place, "rauc", ""), "it does not say why");
    fs::write(&status, "").unwrap();
    let answer = stage(&place, "rauc", "");
    may_be_well_later(&answer, "RAUC's service does not answer");
}

#[test]
fn swupdate_is_asked_again_unless_it_speaks_of_the_image() {
    let conf = "SWUPDATE_KEY=k\nSWUPDATE_HARDWARE=x1:1.0\nSWUPDATE_SELECT_A=stable,a\n\
                SWUPDATE_SELECT_B=stable,b\n";
    let programs = [("swupdate", "cat HERE/says >&2; exit 1")];
    let place = place("swupdate.conf", conf, &programs);
    let said = |errors: &[&str]| {
        let begin = "SWUpdate v\n\n[INFO ] : SWUPDATE started :  Software Update started !\n\
                     [WARN ] : SWUPDATE running :  [mtd_init] : MTD is not present in the system\n";
        let lines = errors
            .iter()
            .map(|error| format!("[ERROR] : SWUPDATE failed [0] ERROR : {error}\n"));
        let end = "[ERROR] : SWUPDATE failed [1] Image invalid or corrupted. Not installing ...\n\
                   swupdate_image_write failed: Connection reset by peer\n";
        let says: String = [begin.to_owned()]
            .into_iter()
            .chain(lines)
            .chain([end.to_owned()])
            .collect();
        stage(&place, "swupdate", &says)
    };
    for errors in [
        &[
            "Authentication of all signatures failed",
            "Compatible SW not found",
        ][..],
        &["Signature verification failed", "Compatible SW not found"],
        &["HASH mismatch : 79 <--> 25", "Error streaming rootfs.img"],
        &[
            "CPIO Format not recognized: magic not found",
            "CPIO Header corrupted, cannot be parsed",
        ],
        &[
            "HW compatibility not found",
            "Found nothing to install",
            "JSON File corrupted",
            "no parser available to parse sw-description!",
            "Compatible SW not found",
        ],
        &["SW not compatible with hardware"],
    ] {
        refused(&said(errors), errors[0]);
    }
    for errors in [
        &["cannot write 708 bytes: No space left on device"][..],
        &[
            "cannot write 16384 bytes: Operation not permitted",
            "Error streaming rootfs.img",
        ],
        &["I cannot open /x/sw-description 28"],
        &["Error loading certificate chain from k"],
        &["Compatible SW not found"],
    ] {
        may_be_well_later(&said(errors), errors[0]);
    }
    // The clock, and not the image.
    let early = "error:17000064:CMS routines:Verify error:certificate is not yet valid\n\
                 [ERROR] : SWUPDATE failed [0] ERROR : Signature verification failed\n";
    let answer = stage(&place, "swupdate", early);
    may_be_well_later(&answer, "Signature verification failed");
    may_be_well_later(&stage(&place, "swupdate", ""), "it does not say why");
}
