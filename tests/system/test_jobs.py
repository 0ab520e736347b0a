"""Logs of jobs, and the lines that errors become."""

import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "workflow" / "scripts"


def run_job(tmp_path, body):
    code = f"from regnet.system.jobs import log_to\nfrom regnet.errors import InputError\nwith log_to('job.log'):\n    {body}"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(PACKAGE)}, capture_output=True, encoding="utf-8")


def test_a_job_logs_what_python_and_compiled_code_print(tmp_path):
    body = "import os, logging; print('printed'); os.system('echo from a child'); logging.info('logged')"
    process = run_job(tmp_path, body)
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")
    log = (tmp_path / "job.log").read_text(encoding="utf-8")
    assert all(text in log for text in ("printed", "from a child", "logged"))


def test_a_known_error_is_one_line_on_the_terminal(tmp_path):
    process = run_job(tmp_path, "raise InputError('scan.mha: empty')")
    assert process.returncode == 1
    assert process.stderr == "error: scan.mha: empty\n"
    assert "scan.mha: empty" in (tmp_path / "job.log").read_text(encoding="utf-8")


def test_an_unknown_error_keeps_its_traceback_in_the_log(tmp_path):
    process = run_job(tmp_path, "1 / 0")
    assert process.returncode == 1
    assert "ZeroDivisionError" in (tmp_path / "job.log").read_text(encoding="utf-8")
