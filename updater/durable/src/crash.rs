//! Named crash points, for the test that aborts before and after every durable write of an install.
//!
//! Only debug builds have them. `VIGIL_CRASH_AT=name.before#2` aborts the process at the second passage of that
//! point; `VIGIL_CRASH_TRACE=file` appends each point that is passed, a line each.

/// Marks the place before or after a durable write.
#[cfg(not(debug_assertions))]
pub fn crash_point(_point: &str, _side: &str) {}

/// Marks the place before or after a durable write.
#[cfg(debug_assertions)]
pub fn crash_point(point: &str, side: &str) {
    if let Some(plan) = plan::get() {
        plan.pass(&format!("{point}.{side}"));
    }
}

#[cfg(debug_assertions)]
mod plan {
    use std::collections::BTreeMap;
    use std::io::Write;
    use std::path::PathBuf;
    use std::sync::{Mutex, OnceLock};

    pub(super) struct Plan {
        abort_at: Option<(String, u32)>,
        trace: Option<PathBuf>,
        passed: Mutex<BTreeMap<String, u32>>,
    }

    pub(super) fn get() -> Option<&'static Plan> {
        static PLAN: OnceLock<Option<Plan>> = OnceLock::new();
        PLAN.get_or_init(|| {
            let abort_at = std::env::var("VIGIL_CRASH_AT").ok().map(|text| match text.split_once('#') {
                Some((name, passage)) => (name.to_owned(), passage.parse().unwrap_or(1)),
                None => (text, 1),
            });
            let trace = std::env::var_os("VIGIL_CRASH_TRACE").map(PathBuf::from);
            (abort_at.is_some() || trace.is_some()).then(|| Plan {
                abort_at,
                trace,
                passed: Mutex::default(),
            })
        })
        .as_ref()
    }

    impl Plan {
        pub(super) fn pass(&self, name: &str) {
            let Ok(mut passed) = self.passed.lock() else { return };
            let count = passed.entry(name.to_owned()).or_insert(0);
            *count += 1;
            if let Some(path) = &self.trace
                && let Ok(mut file) = std::fs::OpenOptions::new().create(true).append(true).open(path)
            {
                let _ = writeln!(file, "{name}");
            }
            if self.abort_at.as_ref().is_some_and(|(at, passage)| at == name && passage == count) {
                std::process::abort();
            }
        }
    }
}
