"""Azure ML: the workspace, submission through azure-ai-ml, and runs on Azure ML."""
