//! gatewayctl-doctor(7), from the table of checks: the manual cannot lag.

use std::fmt::Write as _;

use super::checks;
use super::finding::Check;

/// The page's file name.
pub const NAME: &str = "gatewayctl-doctor.7";

/// The page in roff.
pub fn page() -> String {
    let mut out = format!(
        ".TH gatewayctl-doctor 7 \"\" \"gateway {}\" \"gateway\"\n",
        env!("CARGO_PKG_VERSION")
    );
    out.push_str(
        ".SH NAME\ngatewayctl\\-doctor \\- what gatewayctl doctor finds, and what is done about it\n.SH DESCRIPTION\n\
         .BR \"gatewayctl doctor\"\nlooks at an installed or running gateway and reports every misconfiguration that it knows. Each finding has a\n\
         code that never changes. An\n.I error\nis broken, or breaks at the next restart, crash or boot; a\n.I warning\ngoes wrong on a bad day; a\n\
         .I note\nis good to know. Errors and warnings end the command with 1.\n.PP\nWith\n.B \\-\\-fix\nwhat is marked\n.I mended\nis done, and looked at \
         again. No process is ended, no client is cut, and nothing that\nsomebody wrote is written over; for everything else the exact command is printed.\n",
    );
    for (title, checks) in checks::CHAPTERS {
        let _ = writeln!(out, ".SH {}", escape(title).to_uppercase());
        checks.iter().for_each(|check| section(&mut out, check));
    }
    out.push_str(
        ".SH EXIT STATUS\n0 when nothing that matters was found, or all of it was mended; 1 when something that matters is left; 3 when the gateway \
         is\nneither installed nor runs.\n.SH SEE ALSO\n.BR gatewayctl-doctor (8),\n.BR gatewayctl (8),\n.BR gateway (8),\n.BR systemd.service (5)\n",
    );
    out
}

fn section(out: &mut String, check: &Check) {
    let _ = writeln!(out, ".SS {}", escape(check.code));
    let level = check.level.word();
    let level = if check.mends {
        format!(".I {level}\n(mended):")
    } else {
        format!(".IR {level} :")
    };
    let _ = writeln!(out, "{level}\n{}.\n.PP", escape(check.what));
    let _ = writeln!(out, "{}", escape(check.why));
    let _ = writeln!(out, ".PP\n{}", escape(check.cure));
}

/// What roff would take for itself.
fn escape(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) {
        format!("\\&{text}")
    } else {
        text
    }
}
