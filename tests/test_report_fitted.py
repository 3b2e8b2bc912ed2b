"""Cases without a closed form, as the command line recovers them."""

import json

import jax
import numpy as np
import pytest

from rlinf_ppl import models
from rlinf_ppl.report import cases, fitted, results, table


@pytest.fixture(scope="module")
def planning():
    return fitted.recover(cases.find("planning-memory"), jax.random.key(0))


def test_what_is_fitted_is_what_is_earned_and_paid(planning):
    row, task = planning.row, cases.find("planning-memory").task()
    assert row.converged and row.elbo > row.start
    std = planning.fit.params["std"]
    found = models.noisy_values(task, std, 10.0)
    value = float(task.initial @ np.sum(found.policy * found.value, -1))
    assert abs(row.earned - value) < 5 * row.standard_error
    base = np.asarray(planning.program.args[1].base_std)
    ratio = np.asarray(std) / base
    cost = np.sum(0.5 * (ratio**2 - 1) - np.log(ratio))
    assert row.elbo == pytest.approx(value - cost, abs=1e-6)
    # What an independent optimiser on an independent quadrature finds from everywhere, where std may not exceed 100.
    assert row.elbo == pytest.approx(46.41, abs=0.01)


def test_its_line_and_its_files(planning, tmp_path):
    rows = [planning.row, planning.row._replace(task="another", converged=False)]
    assert [each["task"] for each in json.loads(table.to_json(rows))] == ["planning-memory", "another"]
    text = table.markdown(rows)
    assert table.TITLE_OF_FITS in text and "another *" in text and "did not converge" in text
    assert "Exact answers" not in text and fitted.SETTINGS in text
    assert len(table.rich_tables(rows)) == 1
    written = fitted.write(planning, tmp_path) + results.write_table(rows, tmp_path)
    assert all(path.stat().st_size > 100 for path in written)
