import subprocess
import sys
from pathlib import Path


def test_malformed_inputs_are_refused_or_answered_rightly():
    script = Path(__file__).with_name("malformed_inputs.py")
    command = [sys.executable, str(script)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    refused, answered = map(int, done.stdout.split())
    assert refused > 2000
    assert answered > 100
