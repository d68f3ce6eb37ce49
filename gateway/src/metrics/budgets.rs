//! The budgets of the process on the metrics page: how much of each is taken, and how much there is.
//!
//! Called on an admin thread.

use super::Page;

/// One budget.
pub struct BudgetShown {
    /// What it is for; a label.
    pub name: &'static str,
    /// Bytes that are taken, pools and what cores have leased ahead included.
    pub bytes: u64,
    /// Bytes there are.
    pub bytes_max: u64,
}

impl Page {
    /// The families of the budgets.
    pub fn budgets(&mut self, budgets: &[BudgetShown]) {
        self.budget_family(
            "iris_budget_bytes",
            "Memory taken of a budget of the process",
            budgets,
            |budget| budget.bytes,
        );
        self.budget_family(
            "iris_budget_max_bytes",
            "Memory there is in a budget of the process",
            budgets,
            |budget| budget.bytes_max,
        );
    }

    fn budget_family(
        &mut self,
        name: &str,
        help: &str,
        budgets: &[BudgetShown],
        value: fn(&BudgetShown) -> u64,
    ) {
        self.family(name, "gauge", help);
        for budget in budgets {
            let label = format!("budget=\"{}\"", budget.name);
            self.sample(name, &label, value(budget));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_budget_has_a_line_in_each_family() {
        let mut page = Page::new();
        page.budgets(&[BudgetShown {
            name: "input",
            bytes: 7,
            bytes_max: 9,
        }]);
        let text = page.into_text();
        assert!(text.contains("\niris_budget_bytes{budget=\"input\"} 7\n"));
        assert!(text.contains("\niris_budget_max_bytes{budget=\"input\"} 9\n"));
    }
}
