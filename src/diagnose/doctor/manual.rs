//! gatewayctl-doctor(7), generated from the table of checks.

use std::fmt::Write as _;

use super::checks;
use super::finding::Check;
use crate::text::roff::escape;

/// The page's file name.
pub const NAME: &str = "gatewayctl-doctor.7";

/// The page in roff.
pub fn page() -> String {
    let mut out = format!(
        ".TH gatewayctl-doctor 7 \"\" \"gateway {}\" \"gateway\"\n",
        env!("CARGO_PKG_VERSION")
    );
    out.push_str(
        ".SH NAME\ngatewayctl\\-doctor \\- the findings of gatewayctl doctor and their cures\n.SH DESCRIPTION\n\
         .BR \"gatewayctl doctor\"\nlooks at an installed or running gateway and reports every known misconfiguration. Each finding has a\n\
         code that never changes. An\n.I error\nmeans that something is broken, or that the next restart, crash or boot breaks it; a\n\
         .I warning\nmeans that something works now, but fails in unusual circumstances; a\n\
         .I note\nis good to know. The exit status is 1 if there are errors or warnings.\n.PP\nWith\n.B \\-\\-fix\nthe command fixes what is marked\n\
         .I fixable\nand looks again. It ends no process, breaks no connection, and overwrites nothing that a user\nwrote; for every other finding it \
         prints the exact command.\n",
    );
    for (title, checks) in checks::CHAPTERS {
        let _ = writeln!(out, ".SH {}", escape(title).to_uppercase());
        checks.iter().for_each(|check| section(&mut out, check));
    }
    out.push_str(
        ".SH EXIT STATUS\n0 if there are no errors and warnings, or all of them were fixed; 1 if an error or a warning is left; 3 if the gateway \
         is\nneither installed nor running.\n.SH SEE ALSO\n.BR gatewayctl-doctor (8),\n.BR gatewayctl (8),\n.BR gateway (8),\n.BR systemd.service (5)\n",
    );
    out
}

fn section(out: &mut String, check: &Check) {
    let _ = writeln!(out, ".SS {}", escape(check.code));
    let level = check.level;
    let level = if check.fixable {
        format!(".I {level}\n(fixable):")
    } else {
        format!(".IR {level} :")
    };
    let _ = writeln!(out, "{level}\n{}.\n.PP", escape(check.title));
    let _ = writeln!(out, "{}", escape(check.why));
    let _ = writeln!(out, ".PP\n{}", escape(check.cure));
}
