"""Folders of the working directory that exist when a job starts, and whose files Azure ML uploads by itself.

`outputs` and `logs` are documented ("Set up training targets"). The others are seen: public scripts write markers and
logs to `user_logs`, and a job that printed its environment had a variable for each of the four.
"""

UPLOADED = ("outputs", "logs", "user_logs", "azureml-logs")
