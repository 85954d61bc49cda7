//! The matrix as a table.

use crate::faults::Fault;
use crate::moments::Moment;

/// One row a moment, one column a fault.
pub fn render(cell: impl Fn(Fault, Moment) -> String) -> String {
    let mut text = String::from("| |");
    for moment in Moment::all() {
        text += &format!(" {} |", moment.name());
    }
    text += "\n|---|";
    text += &"---|".repeat(Moment::all().len());
    for fault in Fault::ALL {
        text += &format!("\n| {} |", fault.name());
        for moment in Moment::all() {
            text += &format!(" {} |", cell(fault, moment));
        }
    }
    text + "\n"
}
