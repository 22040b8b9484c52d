"""What is made of findings for whoever acts on them: context for a prompt, answers, a brief, a route, their price."""
