//! Ctrl-C and termination as a flag: whoever waits looks at it, fails, and the ordinary way out cleans up.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};

static RAISED: AtomicBool = AtomicBool::new(false);

/// From now on a signal raises the flag instead of ending the program.
pub(crate) fn install() -> Result<()> {
    ctrlc::set_handler(|| RAISED.store(true, Ordering::SeqCst)).context("cannot handle signals")
}

/// Whether someone asked to stop.
pub(crate) fn raised() -> bool {
    RAISED.load(Ordering::SeqCst)
}

/// Asks to stop, as a signal would.
pub(crate) fn raise() {
    RAISED.store(true, Ordering::SeqCst);
}
